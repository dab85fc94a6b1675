// A callback that is called exactly once: with an answer, or with UNAVAILABLE when the last copy is
// destroyed without one (the server is shutting down and the task that held it was dropped).
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"

namespace finetuned {

template <typename Answer>  // absl::Status or absl::StatusOr<T>
class Reply {
 public:
  explicit Reply(std::function<void(Answer)> callback)
      : state_(std::make_shared<State>(std::move(callback))) {}

  void operator()(Answer answer) const {
    if (auto callback = std::exchange(state_->callback, nullptr)) callback(std::move(answer));
  }

 private:
  struct State {
    explicit State(std::function<void(Answer)> c) : callback(std::move(c)) {}
    ~State() {
      if (callback) callback(absl::UnavailableError("the server is shutting down; try again"));
    }
    std::function<void(Answer)> callback;
  };
  std::shared_ptr<State> state_;
};

}  // namespace finetuned
