#include "server/store/event_hub.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "tests/server/store/store_fixture.h"

namespace finetuned {
namespace {

class EventHubTest : public StoreTest {
 protected:
  void Start(EventHubOptions options = {}) {
    hub_ = std::make_unique<EventHub>(store_.get(), options);
    store_->SetEventListener(
        [this](const std::string& job_id, int64_t seq, std::shared_ptr<const std::string> event) {
          hub_->OnEvent(job_id, seq, std::move(event));
        });
    FT_OK(Insert(MakeJob("a")));
  }
  // `count` events in one write.
  void Append(int count = 1, const std::string& job = "a", size_t bytes = 10) {
    FT_OK(store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
      for (int i = 0; i < count; ++i) {
        if (auto event = writer.AppendEvent(job, LogEvent(std::string(bytes, 'x'))); !event.ok())
          return event.status();
      }
      return absl::OkStatus();
    }));
  }
  void TearDown() override {
    store_->Close();
    hub_.reset();
  }

  std::unique_ptr<EventHub> hub_;
};

// Follows one job as the API does: takes what is ready, sleeps until it is told.
class Follower {
 public:
  Follower(EventHub& hub, const std::string& job, int64_t after_seq) : expected_(after_seq) {
    watcher_ = hub.Subscribe(job, after_seq, [this] {
      std::lock_guard<std::mutex> lock(mutex_);
      told_ = true;
      wake_.notify_one();
    });
  }

  // Reads on until `seq` has come; false after 20 s. Fails the test on any gap or repeat.
  bool ReadTo(int64_t seq, int limit = 100) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (expected_ < seq) {
      auto events = watcher_->Next(limit);
      if (!events.ok()) {
        status_ = events.status();
        return false;
      }
      EXPECT_LE(events->size(), static_cast<size_t>(limit));
      for (const EventHub::Event& bytes : *events) {
        v1::JobEvent event;
        EXPECT_TRUE(event.ParseFromString(*bytes));
        EXPECT_EQ(event.seq(), ++expected_);
      }
      if (events->empty()) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!wake_.wait_until(lock, deadline, [this] { return told_; })) return false;
        told_ = false;
      }
    }
    return true;
  }
  int64_t at() const { return expected_; }
  const absl::Status& status() const { return status_; }
  EventHub::Watcher& watcher() { return *watcher_; }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool told_ = false;
  int64_t expected_;
  absl::Status status_;
  std::unique_ptr<EventHub::Watcher> watcher_;
};

TEST_F(EventHubTest, FromTheStoreThenLive) {
  Start();
  Append(600);  // more than two pages
  Follower follower(*hub_, "a", 0);
  EXPECT_TRUE(follower.ReadTo(600));
  for (int i = 0; i < 20; ++i) {
    Append();
    EXPECT_TRUE(follower.ReadTo(601 + i));
  }
  EXPECT_EQ(hub_->watchers(), 1);
}

TEST_F(EventHubTest, FromTheMiddleAndBeyondTheEnd) {
  Start();
  Append(10);
  Follower middle(*hub_, "a", 7), beyond(*hub_, "a", 12);
  EXPECT_TRUE(middle.ReadTo(10));
  EXPECT_TRUE(beyond.watcher().Next(10)->empty());
  Append(5);
  EXPECT_TRUE(middle.ReadTo(15));
  EXPECT_TRUE(beyond.ReadTo(15));
  Follower hostile(*hub_, "a", std::numeric_limits<int64_t>::max());
  EXPECT_TRUE(hostile.watcher().Next(10)->empty());
  Follower negative(*hub_, "a", 0);
  EXPECT_TRUE(negative.ReadTo(15, /*limit=*/1));
}

TEST_F(EventHubTest, AWatcherThatSleepsFallsBackToTheStore) {
  Start({.ring_events = 8, .ring_bytes = 1 << 20, .store_page = 16});
  Follower slow(*hub_, "a", 0);
  Append(3);
  EXPECT_TRUE(slow.ReadTo(3));
  Append(500);
  EXPECT_TRUE(slow.ReadTo(503));
  Append(1);
  EXPECT_TRUE(slow.ReadTo(504));
}

TEST_F(EventHubTest, BigEventsDoNotFillTheRing) {
  Start({.ring_events = 1000, .ring_bytes = 4096, .store_page = 4});
  Follower follower(*hub_, "a", 0);
  Append(50, "a", 2000);
  EXPECT_TRUE(follower.ReadTo(50));
  Append(1, "a", 100000);
  EXPECT_TRUE(follower.ReadTo(51));
}

TEST_F(EventHubTest, UnknownJobEndsTheWatch) {
  Start();
  Follower follower(*hub_, "none", 0);
  EXPECT_FALSE(follower.ReadTo(1));
  EXPECT_TRUE(absl::IsNotFound(follower.status())) << follower.status();
}

TEST_F(EventHubTest, AWatcherMayEndAtAnyMoment) {
  Start({.ring_events = 16, .ring_bytes = 1 << 20, .store_page = 4});
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) Append(3);
  });
  for (int i = 0; i < 200; ++i) {
    auto alive = std::make_unique<std::atomic<int>>(0);
    auto watcher = hub_->Subscribe("a", i % 7, [&counter = *alive] { ++counter; });
    for (int j = 0; j < i % 5; ++j) (void)watcher->Next(3);
    watcher.reset();  // `alive` goes next: a late notify would be found by the sanitizers
  }
  stop = true;
  writer.join();
  EXPECT_EQ(hub_->watchers(), 0);
}

// Writers, live watchers, late watchers, small rings: every watcher sees 1, 2, 3, …
TEST_F(EventHubTest, RandomWatchersSeeEveryEventOnce) {
  Start({.ring_events = 20, .ring_bytes = 1 << 16, .store_page = 7});
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  constexpr int kEvents = 1500;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    std::mt19937 random(seed);
    for (int sent = 0; sent < kEvents;) {
      const int n = std::min<int>(kEvents - sent, 1 + static_cast<int>(random() % 12));
      Append(n);
      sent += n;
      if (random() % 3 == 0) absl::SleepFor(absl::Microseconds(random() % 1000));
    }
  });
  for (int t = 0; t < 12; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + 1 + t);
      absl::SleepFor(absl::Microseconds(random() % 30000));
      Follower follower(*hub_, "a", static_cast<int64_t>(random() % 50));
      while (follower.at() < kEvents) {
        const int64_t step = 1 + static_cast<int64_t>(random() % 40);
        if (!follower.ReadTo(std::min<int64_t>(kEvents, follower.at() + step),
                             1 + static_cast<int>(random() % 9)))
          break;
        if (random() % 8 == 0) absl::SleepFor(absl::Milliseconds(1));
      }
      EXPECT_GE(follower.at(), kEvents) << follower.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace finetuned
