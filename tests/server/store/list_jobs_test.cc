#include <algorithm>
#include <random>

#include "server/store/page_token.h"
#include "tests/server/store/store_fixture.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ListJobsTest : public StoreTest {
 protected:
  // All pages of `request`, ids in order.
  std::vector<std::string> Ids(v1::ListJobsRequest request) {
    std::vector<std::string> ids;
    for (int page = 0; page < 1000; ++page) {
      const auto response = List(request);
      EXPECT_TRUE(response.ok()) << response.status();
      if (!response.ok()) return ids;
      for (const v1::Job& job : response->jobs()) ids.push_back(job.job_id());
      if (response->next_page_token().empty()) return ids;
      request.set_page_token(response->next_page_token());
    }
    ADD_FAILURE() << "pages without end";
    return ids;
  }
};

TEST_F(ListJobsTest, Orders) {
  FT_OK(Insert(MakeJob("a", 10, 1)));
  FT_OK(Insert(MakeJob("b", 20, 5)));
  FT_OK(Insert(MakeJob("c", 30, 1)));
  v1::ListJobsRequest request;
  request.set_page_size(1);
  EXPECT_THAT(Ids(request), ElementsAre("c", "b", "a"));
  request.set_order_by("create_time");
  EXPECT_THAT(Ids(request), ElementsAre("a", "b", "c"));
  request.set_order_by("priority desc");
  EXPECT_THAT(Ids(request), ElementsAre("b", "a", "c"));
  request.set_order_by("priority");
  EXPECT_THAT(Ids(request), ElementsAre("c", "a", "b"));
}

TEST_F(ListJobsTest, EveryFilterAndOrderAgreesWithAPlainScan) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  std::vector<v1::Job> all;
  FT_OK(store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
    for (int i = 0; i < 300; ++i) {
      v1::Job job = MakeJob(absl::StrCat("job-", i), 1000 + pick(40), pick(5) - 2);
      job.set_state(static_cast<v1::JobState>(1 + pick(10)));
      job.set_owner(absl::StrCat("owner", pick(3)));
      if (pick(2)) (*job.mutable_labels())["team"] = absl::StrCat("t", pick(3));
      if (pick(3) == 0) (*job.mutable_labels())["kind"] = "demo";
      if (auto status = writer.InsertJob(job); !status.ok()) return status;
      all.push_back(job);
    }
    return absl::OkStatus();
  }));
  for (int round = 0; round < 150; ++round) {
    v1::ListJobsRequest request;
    const int order = pick(5);
    static const char* const kOrders[] = {"", "create_time desc", "create_time", "priority desc",
                                          "priority"};
    request.set_order_by(kOrders[order]);
    request.set_page_size(1 + pick(60));
    for (int i = pick(4); i > 0; --i) request.add_states(static_cast<v1::JobState>(1 + pick(10)));
    if (pick(2)) request.set_owner(absl::StrCat("owner", pick(3)));
    if (pick(3) == 0) (*request.mutable_labels())["team"] = absl::StrCat("t", pick(3));
    if (pick(3) == 0) (*request.mutable_labels())["kind"] = "demo";
    if (pick(4) == 0) request.mutable_created_after()->set_seconds(1000 + pick(40));
    if (pick(4) == 0) request.mutable_created_before()->set_seconds(1000 + pick(40));

    std::vector<v1::Job> wanted;
    for (const v1::Job& job : all) {
      const auto& states = request.states();
      if (!states.empty() && std::find(states.begin(), states.end(), job.state()) == states.end())
        continue;
      if (!request.owner().empty() && request.owner() != job.owner()) continue;
      bool labelled = true;
      for (const auto& [name, value] : request.labels()) {
        labelled &= job.labels().count(name) && job.labels().at(name) == value;
      }
      const int64_t time = job.create_time().seconds();
      if (!labelled || (request.has_created_after() && time <= request.created_after().seconds()) ||
          (request.has_created_before() && time >= request.created_before().seconds())) {
        continue;
      }
      wanted.push_back(job);
    }
    const bool by_priority = order >= 3, reverse = order == 0 || order == 1 || order == 4;
    std::sort(wanted.begin(), wanted.end(), [&](const v1::Job& x, const v1::Job& y) {
      const auto key = [&](const v1::Job& job) {
        return std::tuple(by_priority ? -job.priority() : 0, job.create_time().seconds(),
                          job.job_id());
      };
      return reverse ? key(y) < key(x) : key(x) < key(y);
    });
    std::vector<std::string> ids;
    for (const v1::Job& job : wanted) ids.push_back(job.job_id());
    EXPECT_EQ(Ids(request), ids) << request.DebugString();
  }
}

TEST_F(ListJobsTest, LabelsFollowUpdates) {
  v1::Job job = MakeJob("a");
  (*job.mutable_labels())["k"] = "old";
  FT_OK(Insert(job));
  (*job.mutable_labels())["k"] = "new";
  FT_OK(store_->WriteSync([&](StoreWriter& writer) { return writer.UpdateJob(job); }));
  v1::ListJobsRequest request;
  (*request.mutable_labels())["k"] = "old";
  EXPECT_THAT(Ids(request), ElementsAre());
  (*request.mutable_labels())["k"] = "new";
  EXPECT_THAT(Ids(request), ElementsAre("a"));
}

TEST_F(ListJobsTest, PagesStayInPlaceWhenJobsAreAdded) {
  for (int i = 0; i < 6; ++i) FT_OK(Insert(MakeJob(absl::StrCat("j", i), 100 + i)));
  v1::ListJobsRequest request;
  request.set_page_size(3);
  const auto first = List(request);
  FT_OK(Insert(MakeJob("newer", 500)));
  request.set_page_token(first->next_page_token());
  EXPECT_THAT(Ids(request), ElementsAre("j2", "j1", "j0"));
}

TEST_F(ListJobsTest, BadRequestsSayWhatIsAllowed) {
  v1::ListJobsRequest request;
  request.set_order_by("size");
  EXPECT_TRUE(absl::IsInvalidArgument(List(request).status()));
  EXPECT_THAT(std::string(List(request).status().message()), HasSubstr("\"priority desc\""));
  request.Clear();
  request.set_page_size(-1);
  EXPECT_TRUE(absl::IsInvalidArgument(List(request).status()));
  request.Clear();
  request.add_states(static_cast<v1::JobState>(55));
  EXPECT_TRUE(absl::IsInvalidArgument(List(request).status()));
  request.Clear();
  for (int i = 0; i < 17; ++i) (*request.mutable_labels())[absl::StrCat("l", i)] = "v";
  EXPECT_TRUE(absl::IsInvalidArgument(List(request).status()));
  request.Clear();
  request.mutable_created_after()->set_seconds(INT64_MAX);
  request.mutable_created_before()->set_seconds(INT64_MIN);
  EXPECT_TRUE(List(request).ok());
  request.Clear();
  request.set_owner("'; DROP TABLE jobs; --");
  EXPECT_TRUE(List(request).ok());
}

TEST_F(ListJobsTest, HostilePageTokens) {
  for (int i = 0; i < 4; ++i) FT_OK(Insert(MakeJob(absl::StrCat("j", i), 100 + i)));
  v1::ListJobsRequest request;
  request.set_page_size(2);
  const std::string good = List(request)->next_page_token();
  ASSERT_FALSE(good.empty());
  // Of another filter or order.
  v1::ListJobsRequest other = request;
  other.set_page_token(good);
  EXPECT_TRUE(List(other).ok());
  other.set_owner("someone");
  EXPECT_TRUE(absl::IsInvalidArgument(List(other).status()));
  other = request;
  other.set_page_token(good);
  other.set_order_by("create_time");
  EXPECT_TRUE(absl::IsInvalidArgument(List(other).status()));
  // Altered.
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 500; ++i) {
    std::string token = good;
    for (int change = 1 + static_cast<int>(random() % 3); change > 0; --change) {
      const size_t at = random() % (token.size() + 1);
      switch (random() % 3) {
        case 0:
          token.insert(at, 1, static_cast<char>(random() % 256));
          break;
        case 1:
          token.erase(at, 1 + random() % 4);
          break;
        default:
          if (at < token.size()) token[at] = static_cast<char>(random() % 256);
      }
    }
    if (token == good || token.empty()) continue;
    request.set_page_token(token);
    const auto response = List(request);
    // A change that decodes to the same bytes (padding, characters base64 skips) is still the same
    // token.
    if (response.ok()) {
      ASSERT_EQ(response->jobs_size(), 2);
    } else {
      ASSERT_TRUE(absl::IsInvalidArgument(response.status())) << response.status();
    }
  }
  request.set_page_token(std::string(1 << 20, 'A'));
  EXPECT_TRUE(absl::IsInvalidArgument(List(request).status()));
}

}  // namespace
}  // namespace finetuned
