#include "server/store/job_store.h"

#include <future>
#include <memory>
#include <utility>

namespace finetuned {

absl::Status JobStore::WriteSync(WriteFn write) {
  // Shared: the caller may be gone while set_value still returns on the store's thread.
  auto result = std::make_shared<std::promise<absl::Status>>();
  std::future<absl::Status> ready = result->get_future();
  Write(std::move(write), [result](absl::Status status) { result->set_value(std::move(status)); });
  return ready.get();
}

void JobStore::ReadSync(const ReadFn& read) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> ready = done->get_future();
  Read([&read, done](StoreReader& reader) {
    read(reader);
    done->set_value();
  });
  ready.get();
}

}  // namespace finetuned
