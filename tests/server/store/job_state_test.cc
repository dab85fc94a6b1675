#include "server/store/job_state.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <set>

#include "proto/base/file_util.h"

namespace finetuned {
namespace {

std::vector<v1::JobState> AllStates() {
  std::vector<v1::JobState> states;
  for (int i = v1::JobState_MIN; i <= v1::JobState_MAX; ++i) {
    if (v1::JobState_IsValid(i) && i != v1::JOB_STATE_UNSPECIFIED)
      states.push_back(static_cast<v1::JobState>(i));
  }
  return states;
}

TEST(JobState, TableHasEveryStateOnce) {
  std::multiset<v1::JobState> rows;
  for (const JobStateRow& row : JobStateTable()) rows.insert(row.state);
  for (const v1::JobState state : AllStates())
    EXPECT_EQ(rows.count(state), 1u) << JobStateName(state);
  EXPECT_EQ(rows.size(), AllStates().size());
}

TEST(JobState, NextStatesAreInTheTableAndNotTheStateItself) {
  for (const JobStateRow& row : JobStateTable()) {
    EXPECT_FALSE(row.next.empty()) << JobStateName(row.state);
    EXPECT_TRUE(IsLegalTransition(row.state, row.state));
    for (const v1::JobState next : row.next) {
      EXPECT_FALSE(LegalNextStates(next).empty());
      EXPECT_NE(next, row.state);
      EXPECT_TRUE(IsLegalTransition(row.state, next));
    }
  }
}

TEST(JobState, EveryStateIsReachedAndEveryJobCanEnd) {
  std::set<v1::JobState> reached = {v1::VALIDATING};
  for (size_t i = 0; i < AllStates().size(); ++i) {
    for (const JobStateRow& row : JobStateTable()) {
      if (reached.count(row.state)) reached.insert(row.next.begin(), row.next.end());
    }
  }
  EXPECT_EQ(reached.size(), AllStates().size());
  // A person can always end a job that has not ended: at once, or by asking its worker.
  for (const v1::JobState state : AllStates()) {
    if (IsFinal(state) || state == v1::CANCELLING) continue;
    EXPECT_TRUE(IsLegalTransition(state, HasAttempt(state) ? v1::CANCELLING : v1::CANCELLED))
        << JobStateName(state);
  }
}

TEST(JobState, FinalStatesOnlyQueueAgain) {
  for (const v1::JobState state : AllStates()) {
    if (!IsFinal(state)) continue;
    EXPECT_EQ(LegalNextStates(state), std::vector<v1::JobState>{v1::QUEUED});
  }
  EXPECT_FALSE(IsLegalTransition(v1::SUCCEEDED, v1::RUNNING));
  EXPECT_FALSE(IsLegalTransition(v1::VALIDATING, v1::RUNNING));
  EXPECT_FALSE(IsLegalTransition(v1::PAUSED, v1::RUNNING));
}

TEST(JobState, UnknownValues) {
  const auto unknown = static_cast<v1::JobState>(77);
  EXPECT_FALSE(IsLegalTransition(unknown, unknown));
  EXPECT_FALSE(IsLegalTransition(v1::JOB_STATE_UNSPECIFIED, v1::QUEUED));
  EXPECT_TRUE(LegalNextStates(unknown).empty());
  EXPECT_EQ(JobStateName(unknown), "JOB_STATE_77");
}

TEST(JobState, NamesRoundTrip) {
  for (const v1::JobState state : AllStates()) EXPECT_EQ(ParseJobState(JobStateName(state)), state);
  EXPECT_EQ(ParseJobState("running"), v1::RUNNING);
  EXPECT_EQ(ParseJobState("JOB_STATE_UNSPECIFIED"), v1::JOB_STATE_UNSPECIFIED);
  EXPECT_EQ(ParseJobState("runing"), v1::JOB_STATE_UNSPECIFIED);
  EXPECT_EQ(JobStateNames({v1::QUEUED, v1::FAILED}), "QUEUED, FAILED");
}

TEST(JobState, SchemaPageHoldsTheTable) {
  const auto page =
      ReadFile(std::string(getenv("FINETUNED_SOURCE_DIR")) + "/server/store/SCHEMA.md");
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_NE(page->find(JobStateTableMarkdown()), std::string::npos)
      << "SCHEMA.md must hold this table:\n"
      << JobStateTableMarkdown();
}

}  // namespace
}  // namespace finetuned
