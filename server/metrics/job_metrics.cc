#include "server/metrics/job_metrics.h"

#include <cmath>

#include "server/store/job_state.h"

namespace finetuned {
namespace {

absl::Time ToTime(const google::protobuf::Timestamp& stamp) {
  return absl::FromUnixSeconds(stamp.seconds()) + absl::Nanoseconds(stamp.nanos());
}

}  // namespace

void JobMetrics::Seed(const std::vector<v1::Job>& jobs) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const v1::Job& stored : jobs) {
    if (IsFinal(stored.state())) continue;
    Job& job = jobs_[stored.job_id()];
    job.created = job.queued = ToTime(stored.create_time());
    job.trained_tokens = stored.metrics().trained_tokens();
  }
}

void JobMetrics::OnEvent(const std::string& job_id, const std::string& serialized_event) {
  v1::JobEvent event;
  if (!event.ParseFromString(serialized_event)) return;
  const absl::Time time = event.has_time() ? ToTime(event.time()) : absl::Now();
  std::lock_guard<std::mutex> lock(mutex_);
  auto [it, inserted] = jobs_.try_emplace(job_id);
  Job& job = it->second;
  if (inserted) {
    // A job becomes active by a change of state; what a worker still says after the end does not
    // bring it back.
    if (event.body_case() != v1::JobEvent::kState) {
      jobs_.erase(it);
      return;
    }
    job.created = job.queued = time;
  }
  switch (event.body_case()) {
    case v1::JobEvent::kState:
      OnState(job_id, job, event, time);
      if (IsFinal(event.state().to())) {
        RemoveGauges(job_id, job);
        jobs_.erase(it);
        return;
      }
      break;
    case v1::JobEvent::kStage:
      if (event.stage().finished() && !event.stage().reused())
        metrics_->Observe(MetricId::kStageDuration, event.stage().seconds(),
                          {v1::Stage_Name(event.stage().stage())});
      break;
    case v1::JobEvent::kMetrics:
      OnTraining(job_id, job, event.metrics());
      break;
    case v1::JobEvent::kEvaluation:
      OnEvaluation(job_id, job, event.evaluation());
      break;
    case v1::JobEvent::kCheckpoint: {
      const std::string& reason = event.checkpoint().reason();
      const bool known =
          reason == "interval" || reason == "best" || reason == "pause" || reason == "end";
      metrics_->Add(MetricId::kCheckpointsSaved, 1, {known ? reason : "other"});
      break;
    }
    case v1::JobEvent::kIntervention: {
      const std::string& kind = event.intervention().kind();
      metrics_->Add(MetricId::kInterventions, 1,
                    {kind == "skipped_update" || kind == "clipped" ? kind : "other"});
      break;
    }
    case v1::JobEvent::kFailure:
      job.reason = event.failure().reason();
      break;
    case v1::JobEvent::kResult:
      if (event.result().predicted_peak_bytes() > 0) {
        const auto& result = event.result();
        const uint64_t peak =
            result.peak_device_bytes() > 0 ? result.peak_device_bytes() : result.peak_host_bytes();
        if (peak > 0)
          metrics_->Observe(
              MetricId::kMemoryPredictionError,
              static_cast<double>(peak) / static_cast<double>(result.predicted_peak_bytes()) - 1);
      }
      break;
    default:
      break;
  }
}

void JobMetrics::OnState(const std::string& job_id, Job& job, const v1::JobEvent& event,
                         absl::Time time) {
  const v1::StateChange& change = event.state();
  if (change.to() == v1::QUEUED) job.queued = time;
  if (change.to() == v1::STARTING) {
    metrics_->Observe(MetricId::kQueueWait,
                      absl::ToDoubleSeconds(std::max(time - job.queued, absl::ZeroDuration())));
    job.reason = v1::FAILURE_REASON_UNSPECIFIED;
  }
  v1::FailureReason reason;
  if (v1::FailureReason_Parse(change.reason(), &reason)) job.reason = reason;
  if (!IsFinal(change.to())) return;
  const bool failed = change.to() == v1::FAILED;
  metrics_->Add(MetricId::kJobsFinished, 1,
                {JobStateName(change.to()), failed && job.reason != v1::FAILURE_REASON_UNSPECIFIED
                                                ? v1::FailureReason_Name(job.reason)
                                                : "NONE"});
  metrics_->Observe(MetricId::kJobDuration,
                    absl::ToDoubleSeconds(std::max(time - job.created, absl::ZeroDuration())));
}

void JobMetrics::OnTraining(const std::string& job_id, Job& job,
                            const v1::TrainingMetrics& training) {
  if (training.step_seconds() > 0)
    metrics_->Observe(MetricId::kStepDuration, training.step_seconds());
  // trained_tokens is a running total; a new attempt may start lower, at its checkpoint.
  if (training.trained_tokens() > job.trained_tokens)
    metrics_->Add(MetricId::kTokens,
                  static_cast<double>(training.trained_tokens() - job.trained_tokens), {"trained"});
  job.trained_tokens = training.trained_tokens();
  if (!AllowGauges(job)) return;
  metrics_->Set(MetricId::kTokensPerSecond, training.tokens_per_second(), {job_id});
  metrics_->Set(MetricId::kTrainLoss, training.loss(), {job_id});
  metrics_->Set(MetricId::kGradNorm, training.grad_norm(), {job_id});
  metrics_->Set(MetricId::kLearningRate, training.learning_rate(), {job_id});
}

void JobMetrics::OnEvaluation(const std::string& job_id, Job& job,
                              const v1::EvaluationResult& evaluation) {
  if (evaluation.model() == "base" || !AllowGauges(job)) return;
  metrics_->Set(MetricId::kEvalLoss, evaluation.response().loss(), {job_id});
  metrics_->Set(MetricId::kEvalPerplexity, evaluation.overall().perplexity(), {job_id, "overall"});
  metrics_->Set(MetricId::kEvalPerplexity, evaluation.prompt().perplexity(), {job_id, "prompt"});
  metrics_->Set(MetricId::kEvalPerplexity, evaluation.response().perplexity(),
                {job_id, "response"});
}

bool JobMetrics::AllowGauges(Job& job) {
  if (!job.has_gauges && with_gauges_ < kMaxJobs) {
    job.has_gauges = true;
    ++with_gauges_;
  }
  return job.has_gauges;
}

void JobMetrics::RemoveGauges(const std::string& job_id, Job& job) {
  if (!job.has_gauges) return;
  --with_gauges_;
  for (MetricId id : {MetricId::kTokensPerSecond, MetricId::kTrainLoss, MetricId::kGradNorm,
                      MetricId::kLearningRate, MetricId::kEvalLoss})
    metrics_->Remove(id, {job_id});
  for (const char* split : {"overall", "prompt", "response"})
    metrics_->Remove(MetricId::kEvalPerplexity, {job_id, split});
}

}  // namespace finetuned
