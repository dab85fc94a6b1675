// Child of durability_test: writes for ever and prints what has been acknowledged, until it is
// killed.
//   store_writer DB  → lines "job <id>" and "event <seq>" on standard output, each after its
//   commit.
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <semaphore>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/store/job_store.h"

int main(int argc, char** argv) {
  using namespace finetuned;  // NOLINT: one short program
  if (argc != 2) return 2;
  auto store = OpenSqliteStore({.path = argv[1]});
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", store.status().ToString().c_str());
    return 1;
  }
  // One write call, so that a kill cannot cut a line in two.
  const auto say = [](const std::string& line) {
    return write(STDOUT_FILENO, line.data(), line.size()) > 0;
  };
  const auto job_named = [](const std::string& id) {
    v1::Job job;
    job.set_job_id(id);
    job.set_state(v1::VALIDATING);
    return job;
  };
  const std::string run = std::to_string(getpid());
  (void)(*store)->WriteSync(
      [&](StoreWriter& writer) { return writer.InsertJob(job_named("log")); });
  std::counting_semaphore<64> slots(64);  // enough in flight that groups form
  for (int64_t i = 0;; ++i) {
    slots.acquire();
    const std::string id = absl::StrCat(run, "-", i);
    auto seq = std::make_shared<int64_t>(0);
    (*store)->Write(
        [=](StoreWriter& writer) -> absl::Status {
          if (auto status = writer.InsertJob(job_named(id)); !status.ok()) return status;
          auto event = writer.AppendEvent("log", v1::JobEvent());
          if (event.ok()) *seq = event->seq();
          return event.status();
        },
        [=, &slots](absl::Status status) {
          if (!status.ok() || !say(absl::StrCat("job ", id, "\nevent ", *seq, "\n"))) _exit(1);
          slots.release();
        });
  }
}
