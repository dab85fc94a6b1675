// Following a job's event log to its end.
#pragma once

#include <functional>
#include <string>

#include "client/cli.h"

namespace finetuned {

// Hands every event after `after_seq` to `on_event`, in order and each once, until the job has
// ended, `on_event` returns false, or Ctrl-C. A lost connection is announced once, retried for as
// long as it takes and continued after the last event seen, so the server may restart in between.
// The final status: OK, CANCELLED after Ctrl-C, DATA_LOSS for a gap in the log, or what the server
// answered (NOT_FOUND, …). The first connection must succeed within 2.5 s.
grpc::Status FollowEvents(Context& context, const std::string& job_id, int64_t after_seq,
                          const std::function<bool(const v1::JobEvent&)>& on_event);

// `finetune watch`: the events as lines, on a terminal with a live line below them; then the result
// or the failure. Ctrl-C says that the job goes on and how to watch it again. The exit code.
int Watch(Context& context, const std::string& job_id, int64_t after_seq);

// Waits until the job has been checked (left VALIDATING): 0, or 1 after printing its failure.
int WaitUntilValidated(Context& context, const std::string& job_id);

}  // namespace finetuned
