// The worker's short mode: validation of stored jobs, and the verbs that only ask.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "proto/spec/spec.h"
#include "server/store/job_state.h"
#include "server/supervisor/controller_impl.h"

namespace finetuned {
namespace {

constexpr absl::Duration kDevicesTimeout = absl::Seconds(60);

void AddProblems(const google::protobuf::RepeatedPtrField<v1::Problem>& more,
                 std::vector<v1::Problem>* problems) {
  for (const v1::Problem& problem : more) {
    const bool known = std::any_of(problems->begin(), problems->end(), [&](const v1::Problem& p) {
      return p.field() == problem.field() && p.message() == problem.message();
    });
    if (!known) problems->push_back(problem);
  }
}

std::string Describe(const v1::Problem& problem) {
  return absl::StrCat(problem.field(), problem.field().empty() ? "" : ": ", problem.message(),
                      problem.allowed().empty() ? "" : "; allowed: ", problem.allowed());
}

// The first error leads, the others are its company.
v1::Failure FailureOf(const std::vector<v1::Problem>& problems) {
  v1::Failure failure;
  failure.set_step(-1);
  for (const v1::Problem& problem : problems) {
    if (problem.severity() == v1::Problem::WARNING) continue;
    if (failure.message().empty()) {
      failure.set_reason(problem.reason() == v1::FAILURE_REASON_UNSPECIFIED ? v1::INVALID_SPEC
                                                                            : problem.reason());
      failure.set_message(Describe(problem));
      failure.set_field(problem.field());
    } else {
      failure.add_causes(Describe(problem));
    }
  }
  return failure;
}

}  // namespace

void JobController::Impl::WhenDevicesKnown(std::function<void()> task) {
  if (devices_known_) return task();
  waiting_for_devices_.push_back(std::move(task));
}

void JobController::Impl::AskForDevices() {
  v1::QueryRequest request;
  request.set_kind(v1::QueryRequest::DEVICES);
  Query(std::move(request), kDevicesTimeout, [this](absl::StatusOr<v1::QueryResponse> response) {
    devices_known_ = true;
    if (response.ok()) {
      for (const v1::Device& device : response->devices()) {
        if (device.id() == "cpu") continue;
        gpus_.push_back(device);
        if (!device.usable() && gpu_problem_.empty()) {
          gpu_problem_ = absl::StrCat(device.id(), ": ", device.reason());
        }
      }
    } else {
      gpu_problem_ = absl::StrCat("the worker could not be asked: ", response.status().message());
      Log(v1::WARNING, "", gpu_problem_);
    }
    for (auto& task : std::exchange(waiting_for_devices_, {})) task();
    ScheduleSoon();
  });
}

void JobController::Impl::Query(v1::QueryRequest request, absl::Duration timeout,
                                QueryReply reply) {
  queries_.push_back({std::move(request), timeout, std::move(reply)});
  StartQueries();
}

void JobController::Impl::StartQueries() {
  while (!queries_.empty() &&
         static_cast<int>(running_queries_.size()) < options_.concurrent_queries) {
    WaitingQuery query = std::move(queries_.front());
    queries_.pop_front();
    const int64_t id = next_query_++;
    running_queries_[id] = std::move(query.reply);
    dependencies_.launcher->Query(
        query.request.SerializeAsString(), query.timeout,
        [this, loop = loop_, id](absl::StatusOr<std::string> bytes) {
          loop->Post([this, id, bytes = std::move(bytes)] {
            const QueryReply reply = std::move(running_queries_.extract(id).mapped());
            StartQueries();
            v1::QueryResponse response;
            if (!bytes.ok()) return reply(bytes.status());
            if (!response.ParseFromString(*bytes)) {
              return reply(absl::InternalError("the worker's answer to a query is damaged"));
            }
            reply(std::move(response));
          });
        });
  }
}

void JobController::Impl::Check(const v1::JobSpec& spec,
                                std::function<void(absl::StatusOr<SpecCheck>)> then) {
  auto check = [this, spec, then](std::optional<SourceJob> source) {
    WhenDevicesKnown([this, spec, then, source = std::move(source)] {
      DeviceFacts facts;
      facts.has_gpu = std::any_of(gpus_.begin(), gpus_.end(),
                                  [](const v1::Device& gpu) { return gpu.usable(); });
      facts.gpu_problem = gpu_problem_;
      SpecCheck result = CheckSpec(spec, source, dependencies_.paths, facts);
      result.plan.set_cache_dir(options_.data_dir + "/cache");
      then(std::move(result));
    });
  };
  const std::string source_id = spec.source().job_id();
  if (source_id.empty()) {
    // On the control thread in any case: the caller may be on another one.
    loop_->Post([check] { check(std::nullopt); });
    return;
  }
  ReadThen<absl::StatusOr<v1::Job>>(
      [source_id](StoreReader& store) { return store.GetJob(source_id); },
      [this, source_id, check, then](absl::StatusOr<v1::Job> job) {
        if (!job.ok()) return then(job.status());
        SourceJob source{*std::move(job), JobDirectory(options_.data_dir, source_id)};
        if (!HasAdapter(source.job_dir)) {
          return then(WithReason(
              absl::FailedPreconditionError(absl::StrCat(
                  "source.job_id: job ", source_id, " is ", JobStateName(source.job.state()),
                  " and has no adapter or checkpoint yet; wait for its training, or name another "
                  "job")),
              "SOURCE_HAS_NO_ADAPTER"));
        }
        check(std::move(source));
      });
}

void JobController::Impl::StartValidation(const std::string& job_id) {
  if (!validating_.insert(job_id).second) return;
  auto job = jobs_.find(job_id);
  if (job == jobs_.end()) return;
  Check(job->second.submitted_spec(), [this, job_id](absl::StatusOr<SpecCheck> check) {
    if (!check.ok()) {
      v1::Problem problem;
      problem.set_severity(v1::Problem::ERROR);
      problem.set_reason(v1::INVALID_SPEC);
      problem.set_field("source.job_id");
      problem.set_message(std::string(check.status().message()));
      return FinishValidation(job_id, {problem}, v1::QueryResponse());
    }
    if (HasErrors(check->problems)) {
      return FinishValidation(job_id, check->problems, v1::QueryResponse());
    }
    v1::QueryRequest request;
    request.set_kind(v1::QueryRequest::VALIDATE);
    *request.mutable_plan() = check->plan;
    Query(std::move(request), options_.query_timeout,
          [this, job_id, problems = check->problems](absl::StatusOr<v1::QueryResponse> response) {
            FinishValidation(job_id, problems, std::move(response));
          });
  });
}

void JobController::Impl::FinishValidation(const std::string& job_id,
                                           std::vector<v1::Problem> problems,
                                           absl::StatusOr<v1::QueryResponse> response) {
  if (response.ok()) {
    AddProblems(response->problems(), &problems);
  } else {
    v1::Problem problem;
    problem.set_severity(v1::Problem::ERROR);
    problem.set_reason(absl::IsDeadlineExceeded(response.status()) ? v1::TIMEOUT
                                                                   : v1::WORKER_CRASHED);
    problem.set_message(
        absl::StrCat("the check by a worker process failed: ", response.status().message()));
    problems.push_back(std::move(problem));
  }
  Change(
      job_id,
      [problems, response = response.ok() ? *response : v1::QueryResponse()](
          StoreWriter& store, v1::Job* job, absl::Time now) -> absl::Status {
        if (job->state() != v1::VALIDATING) return absl::OkStatus();  // cancelled meanwhile
        for (const v1::Problem& problem : problems) {
          if (problem.severity() != v1::Problem::WARNING) continue;
          v1::JobEvent event;
          event.set_level(v1::WARNING);
          event.mutable_log()->set_text(Describe(problem));
          FT_RETURN_IF_ERROR(AppendJobEvent(store, job, std::move(event), now));
        }
        if (response.has_resolved_spec()) *job->mutable_resolved_spec() = response.resolved_spec();
        if (response.has_estimate()) *job->mutable_estimate() = response.estimate();
        if (HasErrors(problems)) return FailJob(store, job, FailureOf(problems), now);
        return ChangeState(store, job, v1::QUEUED, "checked", now);
      },
      std::nullopt);
  validating_.erase(job_id);
}

void JobController::Impl::PredictTimes(v1::Estimate* estimate) {
  // All that is running or waiting now goes first; each by its own estimate.
  const absl::Time now = clock_->Now();
  double seconds_ahead = 0;
  for (const auto& [job_id, job] : jobs_) {
    if (job.held() || job.state() == v1::PAUSED) continue;
    double left = job.estimate().seconds();
    if (job.metrics().eta_seconds() > 0) left = job.metrics().eta_seconds();
    seconds_ahead += left;
  }
  const absl::Time start = now + absl::Seconds(seconds_ahead);
  SetTimestamp(start, estimate->mutable_predicted_start());
  if (estimate->seconds() > 0) {
    SetTimestamp(start + absl::Seconds(estimate->seconds()), estimate->mutable_predicted_finish());
  }
}

void JobController::Impl::Validate(const v1::ValidateJobRequest& request,
                                   Reply<absl::StatusOr<v1::ValidateJobResponse>> reply) {
  Check(request.spec(), [this, reply](absl::StatusOr<SpecCheck> check) {
    if (!check.ok()) return reply(check.status());
    v1::ValidateJobResponse response;
    for (const v1::Problem& problem : check->problems) *response.add_problems() = problem;
    *response.mutable_resolved_spec() = check->resolved;
    // Paths that are not there would only be reported a second time.
    if (HasErrors(check->problems)) return reply(std::move(response));
    v1::QueryRequest query;
    query.set_kind(v1::QueryRequest::VALIDATE);
    *query.mutable_plan() = check->plan;
    Query(std::move(query), options_.query_timeout,
          [this, reply, problems = check->problems,
           response](absl::StatusOr<v1::QueryResponse> answer) mutable {
            if (!answer.ok()) return reply(answer.status());
            AddProblems(answer->problems(), &problems);
            response.clear_problems();
            for (const v1::Problem& problem : problems) *response.add_problems() = problem;
            if (answer->has_resolved_spec()) {
              *response.mutable_resolved_spec() = answer->resolved_spec();
            }
            if (answer->has_estimate()) {
              *response.mutable_estimate() = answer->estimate();
              PredictTimes(response.mutable_estimate());
            }
            reply(std::move(response));
          });
  });
}

void JobController::Impl::Estimate(const v1::EstimateJobRequest& request,
                                   Reply<absl::StatusOr<v1::EstimateJobResponse>> reply) {
  Check(request.spec(), [this, reply, sweep = request.sweep()](absl::StatusOr<SpecCheck> check) {
    if (!check.ok()) return reply(check.status());
    if (HasErrors(check->problems)) return reply(InvalidSpec(check->problems));
    v1::QueryRequest query;
    query.set_kind(v1::QueryRequest::VALIDATE);
    *query.mutable_plan() = check->plan;
    query.set_sweep(sweep);
    Query(std::move(query), options_.query_timeout,
          [this, reply](absl::StatusOr<v1::QueryResponse> answer) {
            if (!answer.ok()) return reply(answer.status());
            v1::EstimateJobResponse response;
            if (answer->rows().empty()) {
              v1::EstimateRow* row = response.add_rows();
              *row->mutable_estimate() = answer->estimate();
              *row->mutable_problems() = answer->problems();
            } else {
              *response.mutable_rows() = answer->rows();
            }
            for (v1::EstimateRow& row : *response.mutable_rows()) {
              if (row.has_estimate()) PredictTimes(row.mutable_estimate());
            }
            reply(std::move(response));
          });
  });
}

void JobController::Impl::Inspect(const v1::InspectModelRequest& request,
                                  Reply<absl::StatusOr<v1::InspectModelResponse>> reply) {
  v1::JobSpec spec;
  spec.set_model_name_or_path(request.model());
  if (request.has_lora()) *spec.mutable_lora() = request.lora();
  if (request.has_quantization()) *spec.mutable_quantization() = request.quantization();
  // A spec of its own needs a data file; here none is asked for.
  Check(spec, [this, reply](absl::StatusOr<SpecCheck> check) {
    if (!check.ok()) return reply(check.status());
    std::vector<v1::Problem> problems;
    for (const v1::Problem& problem : check->problems) {
      const absl::string_view field = problem.field();
      if (field == "dataset" || absl::StartsWith(field, "dataset.")) continue;
      problems.push_back(problem);
    }
    if (HasErrors(problems)) return reply(InvalidSpec(problems));
    v1::QueryRequest query;
    query.set_kind(v1::QueryRequest::INSPECT);
    *query.mutable_plan() = check->plan;
    Query(std::move(query), options_.query_timeout,
          [reply](absl::StatusOr<v1::QueryResponse> answer) {
            if (!answer.ok()) return reply(answer.status());
            std::vector<v1::Problem> problems(answer->problems().begin(), answer->problems().end());
            if (HasErrors(problems)) return reply(InvalidSpec(problems));
            reply(answer->inspect());
          });
  });
}

void JobController::Impl::Preview(const v1::PreviewDatasetRequest& request,
                                  Reply<absl::StatusOr<v1::PreviewDatasetResponse>> reply) {
  const int samples = request.samples() == 0 ? 3 : request.samples();
  if (samples < 0 || samples > 100) {
    return reply(InvalidField("samples", absl::StrCat("samples is ", samples), "1…100"));
  }
  Check(request.spec(), [this, reply, samples](absl::StatusOr<SpecCheck> check) {
    if (!check.ok()) return reply(check.status());
    if (HasErrors(check->problems)) return reply(InvalidSpec(check->problems));
    v1::QueryRequest query;
    query.set_kind(v1::QueryRequest::PREVIEW);
    query.set_preview_samples(samples);
    *query.mutable_plan() = check->plan;
    Query(std::move(query), options_.query_timeout,
          [reply](absl::StatusOr<v1::QueryResponse> answer) {
            if (!answer.ok()) return reply(answer.status());
            std::vector<v1::Problem> problems(answer->problems().begin(), answer->problems().end());
            if (HasErrors(problems)) return reply(InvalidSpec(problems));
            reply(answer->preview());
          });
  });
}

}  // namespace finetuned
