#include "client/interrupt.h"

#include <csignal>
#include <set>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace finetuned {
namespace {

struct State {
  absl::Mutex mutex;
  bool interrupted ABSL_GUARDED_BY(mutex) = false;
  std::set<grpc::ClientContext*> calls ABSL_GUARDED_BY(mutex);
};

State& GetState() {
  static State* const state = new State;  // outlives the waiting thread
  return *state;
}

}  // namespace

void InstallInterruptHandler() {
  // Blocked in all threads and taken by one that may do anything, unlike a signal handler.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::thread([set] {
    for (int times = 0;; ++times) {
      int signal = 0;
      if (sigwait(&set, &signal) != 0) continue;
      if (times > 0) _exit(130);  // impatient: the second Ctrl-C ends at once
      State& state = GetState();
      absl::MutexLock lock(&state.mutex);
      state.interrupted = true;
      for (grpc::ClientContext* call : state.calls) call->TryCancel();
    }
  }).detach();
}

bool Interrupted() {
  State& state = GetState();
  absl::MutexLock lock(&state.mutex);
  return state.interrupted;
}

bool SleepUnlessInterrupted(int milliseconds) {
  State& state = GetState();
  absl::MutexLock lock(&state.mutex);
  return state.mutex.AwaitWithTimeout(absl::Condition(&state.interrupted),
                                      absl::Milliseconds(milliseconds));
}

CancelOnInterrupt::CancelOnInterrupt(grpc::ClientContext* context) : context_(context) {
  State& state = GetState();
  absl::MutexLock lock(&state.mutex);
  state.calls.insert(context);
  if (state.interrupted) context->TryCancel();
}

CancelOnInterrupt::~CancelOnInterrupt() {
  State& state = GetState();
  absl::MutexLock lock(&state.mutex);
  state.calls.erase(context_);
}

}  // namespace finetuned
