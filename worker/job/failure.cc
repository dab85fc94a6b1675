#include "worker/job/failure.h"

#include <c10/util/Exception.h>

#include <new>

#include "proto/base/file_util.h"
#include "worker/training/trainer.h"

namespace finetuned {
namespace {

constexpr char kPayload[] = "finetuned.v1.Failure";

absl::Status WithFailure(absl::StatusCode code, const v1::Failure& failure) {
  absl::Status status(code, failure.message());
  status.SetPayload(kPayload, absl::Cord(failure.SerializeAsString()));
  return status;
}

}  // namespace

absl::Status FailureStatus(v1::FailureReason reason, const std::string& message, const std::string& field,
                           std::vector<std::string> suggestions) {
  v1::Failure failure;
  failure.set_reason(reason);
  failure.set_message(message);
  failure.set_field(field);
  failure.set_step(-1);
  for (std::string& suggestion : suggestions) failure.add_suggestions(std::move(suggestion));
  return WithFailure(absl::StatusCode::kFailedPrecondition, failure);
}

absl::Status CatchAsStatus(v1::FailureReason reason, const std::function<absl::Status()>& body) {
  try {
    return body();
  } catch (const TrainingError& error) {
    v1::Failure failure;
    failure.set_reason(error.reason);
    failure.set_message(error.what());
    failure.set_step(error.step);
    for (double loss : error.last_losses) failure.add_last_losses(loss);
    for (double norm : error.last_grad_norms) failure.add_last_grad_norms(norm);
    for (const std::string& id : error.sample_ids) failure.add_sample_ids(id);
    for (const std::string& suggestion : error.suggestions) failure.add_suggestions(suggestion);
    return WithFailure(absl::StatusCode::kFailedPrecondition, failure);
  } catch (const c10::OutOfMemoryError& error) {
    return FailureStatus(v1::OUT_OF_MEMORY, error.what_without_backtrace(), "",
                         {"gradient_checkpointing=true", "per_device_train_batch_size=1", "quantization.load_in_4bit=true"});
  } catch (const std::bad_alloc&) {
    return FailureStatus(v1::HOST_OUT_OF_MEMORY, "the host has no memory left for this job", "",
                         {"per_device_train_batch_size=1", "gradient_checkpointing=true"});
  } catch (const c10::Error& error) {
    return FailureStatus(reason, error.what_without_backtrace());
  } catch (const std::exception& error) {
    return FailureStatus(reason, error.what());
  }
}

v1::Failure FailureOf(const absl::Status& status, v1::FailureReason otherwise) {
  v1::Failure failure;
  if (const auto payload = status.GetPayload(kPayload); payload.has_value()) {
    failure.ParseFromString(std::string(*payload));
    return failure;
  }
  failure.set_reason(IsDiskFull(status) ? v1::DISK_FULL : otherwise);
  failure.set_step(-1);
  failure.set_message(std::string(status.message()));
  return failure;
}

}  // namespace finetuned
