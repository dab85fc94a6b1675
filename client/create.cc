#include "client/create.h"

#include "absl/strings/str_cat.h"
#include "client/event_text.h"
#include "client/job_file.h"
#include "client/result.h"
#include "client/watch.h"

namespace finetuned {
namespace {

// Prints only the answer; a terminal sees what is being waited for on standard error.
int WaitForAnswer(Context& context, const std::string& job_id) {
  std::string stage;
  const grpc::Status status = FollowEvents(context, job_id, 0, [&](const v1::JobEvent& event) {
    if (event.body_case() == v1::JobEvent::kStage && !event.stage().finished()) {
      const std::string now = StageText(event.stage().stage());
      if (now != stage && context.out.terminal()) context.out.Note(absl::StrCat("… ", now));
      stage = now;
    }
    return true;
  });
  if (Interrupted()) {
    context.out.Plain(absl::StrCat("the job goes on; see it with: finetune watch ", job_id));
    return kInterrupted;
  }
  if (!status.ok()) return context.Fail(status);
  v1::GetJobRequest request;
  request.set_job_id(job_id);
  v1::Job job;
  if (const grpc::Status got = context.connection.Call(&Connection::Stub::GetJob, request, &job);
      !got.ok()) {
    return context.Fail(got);
  }
  if (context.out.machine() && job.state() == v1::SUCCEEDED) {
    context.out.Message(job.result());
    return kOk;
  }
  return PrintEnd(context.out, job);
}

}  // namespace

int Follow(Context& context, const v1::Job& job, Afterwards afterwards) {
  const std::string& id = job.job_id();
  if (afterwards == Afterwards::kAnswer) return WaitForAnswer(context, id);
  if (!context.out.terminal() && !context.out.machine()) {
    context.out.Line(id);
  } else if (!context.out.machine()) {
    context.out.Line(absl::StrCat("job ", context.out.Paint(Color::kBold, id), " submitted"));
  }
  if (afterwards == Afterwards::kWatch) return Watch(context, id, 0);
  const int code = WaitUntilValidated(context, id);
  if (context.out.machine()) {
    v1::GetJobRequest request;
    request.set_job_id(id);
    v1::Job now;
    if (context.connection.Call(&Connection::Stub::GetJob, request, &now).ok())
      context.out.Message(now);
  } else if (code == kOk && context.out.terminal() && !context.out.quiet()) {
    context.out.Line(absl::StrCat("checked and queued; watch it with: finetune watch ", id));
  }
  return code;
}

int CreateAndFollow(Context& context, CreateMethod method, v1::CreateJobRequest request,
                    Afterwards afterwards, const std::string& file,
                    const std::map<std::string, int>& lines) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  v1::Job job;
  grpc::Status status;
  for (int tries = 0; tries < 3; ++tries) {
    status = context.connection.Call(method, request, &job);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || Interrupted()) break;
    if (tries == 0 && !context.connection.WaitReady(0).ok())
      break;  // never was there: say so at once
  }
  if (!status.ok()) return context.Fail(status, file, lines);
  return Follow(context, job, afterwards);
}

}  // namespace finetuned
