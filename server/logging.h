// The server's log: one line an event on standard error, as text or as JSON (one object a line:
// time, level, job, text). Each job's own log is its worker's, below the data directory.
//
// Threads: any. Lines of gRPC and protobuf come in at level debug.
#pragma once

#include <string>
#include <string_view>

#include "finetuned/v1/types.pb.h"

namespace finetuned {

// format: text | json; level: trace | debug | info | warning | error | off (config.h checks both).
void StartLogging(const std::string& format, const std::string& level);
void SetLogLevel(const std::string& level);

// job_id may be empty. Control characters in `text` are escaped, so that one event is one line.
void Log(v1::Level level, std::string_view job_id, std::string_view text);
inline void LogInfo(std::string_view text) { Log(v1::INFO, "", text); }
inline void LogError(std::string_view text) { Log(v1::ERROR, "", text); }

// One line of the log without its line end; for tests.
std::string TextLogMessage(std::string_view job_id, std::string_view text);
std::string JsonLogMessage(std::string_view level, std::string_view job_id, std::string_view text);

}  // namespace finetuned
