#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/store/job_state.h"

namespace finetuned {
namespace {

// Smaller runs first.
auto Rank(int priority, absl::Time create_time, const std::string& job_id) {
  return std::make_tuple(-static_cast<int64_t>(priority), create_time, job_id);
}
template <typename View>
auto RankOf(const View& view) {
  return Rank(view.priority, view.create_time, view.job_id);
}

bool IsGpu(const DeviceView& device) { return device.id != "cpu"; }

// A device with what is taken on it, decisions of this round included.
struct Room {
  const DeviceView* device;
  int max_jobs;
  std::vector<RunningView> taken;

  uint64_t reserved() const {
    uint64_t bytes = 0;
    for (const RunningView& running : taken) bytes += running.reserved_bytes;
    return bytes;
  }
  bool SlotFree() const { return max_jobs == 0 || static_cast<int>(taken.size()) < max_jobs; }
};

class Round {
 public:
  explicit Round(const ScheduleInput& input) : input_(input) {
    for (const DeviceView& device : input.devices) {
      const int max_jobs =
          device.max_jobs == 0 && !IsGpu(device) ? input.max_cpu_jobs : device.max_jobs;
      Room& room = rooms_.emplace_back(Room{&device, max_jobs, {}});
      for (const RunningView& running : input.running) {
        if (running.device == device.id) room.taken.push_back(running);
      }
    }
  }

  Decisions Run() {
    std::vector<const JobView*> queue;
    for (const JobView& job : input_.jobs) queue.push_back(&job);
    std::sort(queue.begin(), queue.end(),
              [](const JobView* a, const JobView* b) { return RankOf(*a) < RankOf(*b); });
    for (const JobView* job : queue) {
      if (!Blocked(*job)) Place(*job);
    }
    for (size_t i = 0; i < decisions_.waiting.size(); ++i) {
      decisions_.waiting[i].position = static_cast<int>(i) + 1;
      decisions_.waiting[i].jobs_ahead = static_cast<int>(i);
    }
    return std::move(decisions_);
  }

 private:
  void Wait(const JobView& job, v1::PendingReason reason, std::string detail,
            absl::Time earliest = absl::InfinitePast()) {
    decisions_.waiting.push_back({job.job_id, reason, std::move(detail), 0, 0, earliest});
  }

  // Planned bytes of memory `bytes` for `job`.
  uint64_t Planned(uint64_t bytes, const JobView& job) const {
    return static_cast<uint64_t>(static_cast<double>(bytes) *
                                 std::min(job.memory_fraction, input_.memory_fraction));
  }

  // True when the job waits, or fails, whatever the devices hold.
  bool Blocked(const JobView& job) {
    for (const JobView::Dependency& dependency : job.after) {
      if (dependency.state == v1::SUCCEEDED ||
          (dependency.state.has_value() && !IsFinal(*dependency.state)))
        continue;
      Decisions::Fail& fail = decisions_.fails.emplace_back();
      fail.cause = Decisions::Fail::Cause::kDependency;
      fail.job_id = job.job_id;
      fail.failure.set_reason(v1::INVALID_SPEC);
      fail.failure.set_step(-1);
      fail.failure.set_field("after");
      fail.failure.set_message(
          dependency.state.has_value()
              ? absl::StrCat("it comes after job ", dependency.job_id, ", which is ",
                             JobStateName(*dependency.state),
                             "; rerun that job until it succeeds, then rerun this one")
              : absl::StrCat(
                    "it comes after job ", dependency.job_id,
                    ", which has been deleted; submit it again without that job in `after`"));
      return true;
    }
    if (job.held) {
      Wait(job, v1::HELD, "held until it is released (UpdateJob held=false)");
      return true;
    }
    for (const JobView::Dependency& dependency : job.after) {
      if (dependency.state == v1::SUCCEEDED) continue;
      Wait(job, v1::DEPENDENCY,
           absl::StrCat("waits for job ", dependency.job_id, ", which is ",
                        JobStateName(*dependency.state)));
      return true;
    }
    if (job.process_ending) {
      Wait(job, v1::RESOURCES, "the process of its last attempt is still ending");
      return true;
    }
    if (job.not_before > input_.now) {
      // No remaining time in the text: it is stored, and need not change with every look.
      Wait(job, v1::RESOURCES, "waits a moment before it is tried again", job.not_before);
      return true;
    }
    if (input_.disk_free_bytes < input_.disk_reserve_bytes ||
        input_.disk_free_bytes - input_.disk_reserve_bytes < job.disk_bytes) {
      Wait(job, v1::DISK,
           absl::StrCat("needs ", ByteText(job.disk_bytes), " of disk beside the ",
                        ByteText(input_.disk_reserve_bytes), " that are kept free, ",
                        ByteText(input_.disk_free_bytes), " are there"));
      return true;
    }
    return false;
  }

  void Place(const JobView& job) {
    const JobView*& head = job.wants_gpu ? gpu_head_ : cpu_head_;
    Room* best =
        nullptr;  // most room left among those with a free slot, or, without one, among all
    uint64_t best_left = 0;
    bool best_slot = false;
    const Room* largest = nullptr;
    uint64_t most = 0;  // planned on the largest device when nothing else uses it
    std::string unusable;
    bool head_in_the_way = false;
    for (Room& room : rooms_) {
      if (IsGpu(*room.device) != job.wants_gpu) continue;
      if (!room.device->usable) {
        if (unusable.empty()) unusable = absl::StrCat(room.device->id, ": ", room.device->reason);
        continue;
      }
      const uint64_t whole = Planned(room.device->total_bytes, job);
      if (largest == nullptr || whole > most) {
        largest = &room;
        most = whole;
      }
      const uint64_t left = Left(room, job);
      const bool slot = room.SlotFree();
      if (slot && left >= job.predicted_bytes && head != nullptr && Delays(job, *head, room)) {
        head_in_the_way = true;
        continue;
      }
      if (best == nullptr || std::make_tuple(slot, left) > std::make_tuple(best_slot, best_left)) {
        best = &room;
        best_left = left;
        best_slot = slot;
      }
    }
    if (largest == nullptr) {
      Wait(job, v1::RESOURCES,
           absl::StrCat("no usable ", job.wants_gpu ? "GPU" : "CPU device", " is there now",
                        unusable.empty() ? "" : absl::StrCat(" (", unusable, ")")));
      return;
    }
    if (job.predicted_bytes > most) return TooLarge(job, *largest, most);
    if (best != nullptr && best_slot && best_left >= job.predicted_bytes) {
      decisions_.starts.push_back({job.job_id, best->device->id, job.predicted_bytes});
      best->taken.push_back(
          {job.job_id, best->device->id, job.predicted_bytes, job.priority, job.create_time});
      return;
    }
    if (head_in_the_way) {
      Wait(job, v1::PRIORITY,
           absl::StrCat("fits now, but would delay job ", head->job_id, ", which is before it"));
      return;
    }
    if (head != nullptr) {
      Wait(job, v1::PRIORITY,
           absl::StrCat("behind job ", head->job_id, "; ",
                        Shortage(job, *best, best_left, best_slot)));
      return;
    }
    head = &job;
    Wait(job, v1::RESOURCES, Shortage(job, *best, best_left, best_slot));
  }

  std::string Shortage(const JobView& job, const Room& room, uint64_t left, bool slot) const {
    if (!slot && left >= job.predicted_bytes) {
      return absl::StrCat("all ", room.max_jobs, room.max_jobs == 1 ? " place" : " places", " on ",
                          room.device->id, " are taken");
    }
    return absl::StrCat("needs ", ByteText(job.predicted_bytes), ", ", ByteText(left), " of ",
                        ByteText(Planned(room.device->free_bytes, job)), " planned are free on ",
                        room.device->id);
  }

  uint64_t Left(const Room& room, const JobView& job) const {
    const uint64_t plan = Planned(room.device->free_bytes, job), reserved = room.reserved();
    return plan > reserved ? plan - reserved : 0;
  }

  // Whether `job`, started on `room`, could keep `head` waiting longer than the jobs ranked before
  // the head do.
  bool Delays(const JobView& job, const JobView& head, const Room& room) const {
    if (Planned(room.device->total_bytes, head) < head.predicted_bytes)
      return false;  // never the head's place
    uint64_t behind = job.predicted_bytes;
    int jobs_behind = 1;
    for (const RunningView& running : room.taken) {
      if (RankOf(running) < RankOf(head)) continue;
      behind += running.reserved_bytes;
      ++jobs_behind;
    }
    if (room.max_jobs > 0 && jobs_behind >= room.max_jobs) return true;
    const uint64_t plan = Planned(room.device->free_bytes, head);
    return plan < head.predicted_bytes || plan - head.predicted_bytes < behind;
  }

  void TooLarge(const JobView& job, const Room& room, uint64_t most) {
    Decisions::Fail& fail = decisions_.fails.emplace_back();
    fail.cause = Decisions::Fail::Cause::kTooLarge;
    fail.job_id = job.job_id;
    v1::Failure& failure = fail.failure;
    failure.set_reason(job.wants_gpu ? v1::OUT_OF_MEMORY : v1::HOST_OUT_OF_MEMORY);
    failure.set_step(-1);
    failure.set_memory_requested_bytes(job.predicted_bytes);
    failure.set_memory_available_bytes(most);
    failure.set_message(
        absl::StrCat("needs ", ByteText(job.predicted_bytes), " at its peak, ", ByteText(most),
                     " can be planned on ", room.device->id, ", the largest ",
                     job.wants_gpu ? "GPU" : "device for CPU jobs", " (",
                     absl::StrFormat("%g", std::min(job.memory_fraction, input_.memory_fraction)),
                     " of ", ByteText(room.device->total_bytes), ")"));
    failure.add_suggestions("per_device_train_batch_size=1");
    failure.add_suggestions("gradient_checkpointing=true");
    failure.add_suggestions("quantization.load_in_4bit=true");
  }

  const ScheduleInput& input_;
  std::vector<Room> rooms_;
  const JobView* gpu_head_ = nullptr;
  const JobView* cpu_head_ = nullptr;
  Decisions decisions_;
};

}  // namespace

JobView ViewOf(const v1::Job& job) {
  JobView view;
  view.job_id = job.job_id();
  view.owner = job.owner();
  view.priority = job.priority();
  view.create_time = absl::FromUnixSeconds(job.create_time().seconds()) +
                     absl::Nanoseconds(job.create_time().nanos());
  view.wants_gpu = job.resolved_spec().devices().value() > 0;
  const v1::MemoryEstimate& memory = job.estimate().memory();
  view.predicted_bytes = view.wants_gpu
                             ? memory.device_peak_bytes()
                             : std::max(memory.device_peak_bytes(), memory.host_peak_bytes());
  view.disk_bytes = memory.disk_bytes();
  if (job.resolved_spec().has_memory_fraction())
    view.memory_fraction = job.resolved_spec().memory_fraction();
  view.held = job.held();
  for (const std::string& id : job.after()) view.after.push_back({id, std::nullopt});
  return view;
}

Decisions Schedule(const ScheduleInput& input) { return Round(input).Run(); }

std::string ByteText(uint64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes >= uint64_t{1} << 30) return absl::StrFormat("%.1f GiB", value / (1 << 30));
  if (bytes >= uint64_t{1} << 20) return absl::StrFormat("%.0f MiB", value / (1 << 20));
  return absl::StrCat(bytes, " bytes");
}

}  // namespace finetuned
