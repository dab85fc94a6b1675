#include "server/store/job_store.h"

#include <utility>

#include "absl/synchronization/notification.h"

namespace finetuned {

absl::Status JobStore::WriteSync(WriteFn write) {
  absl::Notification done;
  absl::Status result;
  Write(std::move(write), [&](absl::Status status) {
    result = std::move(status);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

void JobStore::ReadSync(const ReadFn& read) {
  absl::Notification done;
  Read([&](StoreReader& reader) {
    read(reader);
    done.Notify();
  });
  done.WaitForNotification();
}

}  // namespace finetuned
