// Creating a job and telling about it: what submit, export, merge, generate and rerun have in
// common.
#pragma once

#include <map>
#include <string>

#include "client/cli.h"

namespace finetuned {

using CreateMethod = grpc::Status (Connection::Stub::*)(grpc::ClientContext*,
                                                        const v1::CreateJobRequest&, v1::Job*);

enum class Afterwards {
  kValidated,  // wait until the job has been checked
  kWatch,      // follow it to its end
  kAnswer,     // wait for the end in silence and print the result alone
};

// Sends the request (again, with the same request_id, if the connection breaks), prints the job id
// (alone when piped) and goes on as told. The exit code.
int CreateAndFollow(Context& context, CreateMethod method, v1::CreateJobRequest request,
                    Afterwards afterwards, const std::string& file = "",
                    const std::map<std::string, int>& lines = {});

// The id of a job that exists now: prints it and goes on as told.
int Follow(Context& context, const v1::Job& job, Afterwards afterwards);

}  // namespace finetuned
