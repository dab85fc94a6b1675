// Ctrl-C: a call in flight is cancelled, and the command ends in order (exit code 130) instead of
// being killed.
#pragma once

namespace grpc {
class ClientContext;
}

namespace finetuned {

// Starts the thread that waits for SIGINT. Call before any other thread is started, once.
void InstallInterruptHandler();
bool Interrupted();
// Sleeps up to `milliseconds`; returns early (true) when interrupted.
bool SleepUnlessInterrupted(int milliseconds);

// While it lives, Ctrl-C cancels this call.
class CancelOnInterrupt {
 public:
  explicit CancelOnInterrupt(grpc::ClientContext* context);
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;

 private:
  grpc::ClientContext* context_;
};

}  // namespace finetuned
