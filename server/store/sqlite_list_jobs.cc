// ListJobs: keyset pagination. A page is found in an index that has the wanted order, from the
// place where the last page ended, so that page 2,000 costs what page 1 costs.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/status_macros.h"
#include "server/store/job_state.h"
#include "server/store/page_token.h"
#include "server/store/sqlite_session.h"

namespace finetuned {
namespace {

constexpr int kDefaultPageSize = 50;
constexpr int kMaxPageSize = 1000;
constexpr int kMaxLabels = 16;

struct Order {
  const char* name;
  std::vector<const char*>
      keys;  // all ascending or all descending, so that one row-value comparison finds the place
  bool descending;
};

// Jobs of equal priority are in the order they run: oldest first. "priority" is the exact reverse
// of "priority desc".
const std::vector<Order>& Orders() {
  static const auto* orders = new std::vector<Order>{
      {"create_time desc", {"create_time", "job_id"}, true},
      {"create_time", {"create_time", "job_id"}, false},
      {"priority desc", {"rank", "create_time", "job_id"}, false},
      {"priority", {"rank", "create_time", "job_id"}, true},
  };
  return *orders;
}

absl::StatusOr<const Order*> FindOrder(const std::string& name) {
  if (name.empty()) return &Orders().front();
  for (const Order& order : Orders()) {
    if (name == order.name) return &order;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("order_by '", name, "' is unknown; allowed: ",
                   absl::StrJoin(Orders(), ", ", [](std::string* out, const Order& o) {
                     absl::StrAppend(out, "\"", o.name, "\"");
                   })));
}

// What a page token is bound to. Lengths keep different filters from giving one text.
std::string Context(const v1::ListJobsRequest& request, const Order& order,
                    const std::set<int>& states, const std::map<std::string, std::string>& labels) {
  std::string text =
      absl::StrCat(order.name, "|", absl::StrJoin(states, ","), "|", request.owner().size(), ":",
                   request.owner(), "|", request.has_created_after(), ":",
                   TimestampNanos(request.created_after()), "|", request.has_created_before(), ":",
                   TimestampNanos(request.created_before()));
  for (const auto& [name, value] : labels) {
    absl::StrAppend(&text, "|", name.size(), ":", name, "=", value.size(), ":", value);
  }
  return text;
}

// Builds the text of one query and remembers what to bind where.
class QueryBuilder {
 public:
  std::string Bind(int64_t value) {
    values_.push_back({true, value, ""});
    return absl::StrCat("?", values_.size());
  }
  std::string Bind(const std::string& text) {
    values_.push_back({false, 0, text});
    return absl::StrCat("?", values_.size());
  }
  void Apply(Statement& statement) const {
    for (size_t i = 0; i < values_.size(); ++i) {
      const int index = static_cast<int>(i) + 1;
      values_[i].is_int ? statement.Bind(index, values_[i].number)
                        : statement.Bind(index, values_[i].text);
    }
  }

 private:
  struct Value {
    bool is_int;
    int64_t number;
    std::string text;
  };
  std::vector<Value> values_;
};

std::string OrderBy(const Order& order, const std::string& table) {
  return absl::StrJoin(order.keys, ", ", [&](std::string* out, const char* key) {
    absl::StrAppend(out, table, ".", key, order.descending ? " DESC" : "");
  });
}

}  // namespace

absl::StatusOr<v1::ListJobsResponse> SqliteSession::ListJobs(const v1::ListJobsRequest& request) {
  FT_ASSIGN_OR_RETURN(const Order* order, FindOrder(request.order_by()));
  if (request.page_size() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("page_size ", request.page_size(),
                                                   " is negative; allowed: 1…", kMaxPageSize,
                                                   ", 0 for ", kDefaultPageSize));
  }
  if (request.labels_size() > kMaxLabels) {
    return absl::InvalidArgumentError(absl::StrCat("labels: ", request.labels_size(),
                                                   " labels in one filter; allowed: ", kMaxLabels));
  }
  const int page_size =
      request.page_size() == 0 ? kDefaultPageSize : std::min(request.page_size(), kMaxPageSize);
  std::set<int> states;
  for (const int state : request.states()) {
    if (LegalNextStates(static_cast<v1::JobState>(state)).empty()) {
      return absl::InvalidArgumentError(absl::StrCat("states: ", state, " is no state of a job"));
    }
    states.insert(state);
  }
  const std::map<std::string, std::string> labels(request.labels().begin(), request.labels().end());
  const std::string context = Context(request, *order, states, labels);
  std::optional<PagePosition> position;
  if (!request.page_token().empty()) {
    FT_ASSIGN_OR_RETURN(position, DecodePageToken(request.page_token(), context));
  }

  QueryBuilder query;
  const bool by_rank = order->keys.size() == 3;
  // A filter by label is driven by the label's own index; in the order of time it also gives the
  // order.
  const bool by_label = !labels.empty();
  const std::string key_table = by_label && !by_rank ? "l" : "j";
  std::vector<std::string> conditions;
  if (!request.owner().empty())
    conditions.push_back(absl::StrCat("j.owner = ", query.Bind(request.owner())));
  if (request.has_created_after()) {
    conditions.push_back(absl::StrCat(key_table, ".create_time > ",
                                      query.Bind(TimestampNanos(request.created_after()))));
  }
  if (request.has_created_before()) {
    conditions.push_back(absl::StrCat(key_table, ".create_time < ",
                                      query.Bind(TimestampNanos(request.created_before()))));
  }
  if (position.has_value()) {
    std::vector<std::string> keys, values;
    for (const std::string key : order->keys) {
      keys.push_back(absl::StrCat(key_table, ".", key));
      values.push_back(key == "job_id"        ? query.Bind(position->job_id)
                       : key == "create_time" ? query.Bind(position->create_time)
                                              : query.Bind(position->rank));
    }
    conditions.push_back(absl::StrCat("(", absl::StrJoin(keys, ", "), ") ",
                                      order->descending ? "<" : ">", " (",
                                      absl::StrJoin(values, ", "), ")"));
  }
  std::string from;
  if (by_label) {
    from = "labels l CROSS JOIN jobs j ON j.job_id = l.job_id";
    bool first = true;
    for (const auto& [name, value] : labels) {
      const std::string n = query.Bind(name), v = query.Bind(value);
      conditions.push_back(
          first ? absl::StrCat("l.name = ", n, " AND l.value = ", v)
                : absl::StrCat("EXISTS (SELECT 1 FROM labels x WHERE x.name = ", n,
                               " AND x.value = ", v,
                               " AND x.create_time = j.create_time AND x.job_id = j.job_id)"));
      first = false;
    }
    if (!states.empty())
      conditions.push_back(absl::StrCat("j.state IN (", absl::StrJoin(states, ","), ")"));
  } else {
    // The planner has no statistics; the index that has the wanted order is named.
    from = absl::StrCat("jobs j INDEXED BY jobs_by",
                        !request.owner().empty() && !by_rank ? "_owner" : "",
                        states.empty() ? "" : "_state", by_rank ? "_rank" : "_time");
  }
  const std::string limit = query.Bind(static_cast<int64_t>(page_size) + 1);
  const auto branch = [&](std::vector<std::string> where) {
    where.insert(where.end(), conditions.begin(), conditions.end());
    return absl::StrCat("SELECT * FROM (SELECT j.id, j.rank, j.create_time, j.job_id FROM ", from,
                        where.empty() ? "" : " WHERE ", absl::StrJoin(where, " AND "), " ORDER BY ",
                        OrderBy(*order, key_table), " LIMIT ", limit, ")");
  };
  // One branch a state, each in the order of the index, then merged: no branch is sorted as a
  // whole.
  std::vector<std::string> branches;
  if (by_label || states.empty()) {
    branches.push_back(branch({}));
  } else {
    for (const int state : states) branches.push_back(branch({absl::StrCat("j.state = ", state)}));
  }
  Statement statement = db_.PrepareOnce(absl::StrCat(
      "SELECT ", kJobColumns, ", j.rank, j.create_time, j.job_id FROM (",
      absl::StrJoin(branches, " UNION ALL "), " ORDER BY ",
      absl::StrJoin(order->keys, ", ",
                    [&](std::string* out, const char* key) {
                      absl::StrAppend(out, key, order->descending ? " DESC" : "");
                    }),
      " LIMIT ", limit, ") p CROSS JOIN jobs j ON j.id = p.id ORDER BY ", OrderBy(*order, "p")));
  query.Apply(statement);
  v1::ListJobsResponse response;
  PagePosition last;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return response;
    if (response.jobs_size() == page_size) {
      response.set_next_page_token(EncodePageToken(last, context));
      return response;
    }
    FT_ASSIGN_OR_RETURN(*response.add_jobs(), ReadJob(statement));
    last = {statement.Int(2), statement.Int(3), statement.Text(4)};
  }
}

}  // namespace finetuned
