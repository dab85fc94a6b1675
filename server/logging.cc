#include "server/logging.h"

#include <grpc/support/log.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>

#include "google/protobuf/stubs/logging.h"

namespace finetuned {
namespace {

std::atomic<bool> json{false};

spdlog::level::level_enum SpdlogLevel(v1::Level level) {
  switch (level) {
    case v1::DEBUG:
      return spdlog::level::debug;
    case v1::WARNING:
      return spdlog::level::warn;
    case v1::ERROR:
      return spdlog::level::err;
    default:
      return spdlog::level::info;
  }
}

// As in JSON strings (RFC 8259): quotes, backslashes and control characters.
std::string Escape(std::string_view text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      if (quotes && (c == '"' || c == '\\')) out += '\\';
      out += c;
    }
  }
  return out;
}

void OnGrpcLog(gpr_log_func_args* args) {
  Log(v1::DEBUG, "", std::string("grpc: ") + args->message);
}
void OnProtobufLog(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  Log(v1::DEBUG, "", "protobuf: " + message);
}

}  // namespace

std::string TextLogMessage(std::string_view job_id, std::string_view text) {
  std::string message = Escape(text, false);
  return job_id.empty() ? message : "[" + std::string(job_id) + "] " + message;
}

std::string JsonLogMessage(std::string_view level, std::string_view job_id, std::string_view text) {
  std::string message = "\"level\":\"" + Escape(level, true) + "\"";
  if (!job_id.empty()) message += ",\"job\":\"" + Escape(job_id, true) + "\"";
  return message + ",\"text\":\"" + Escape(text, true) + "\"";
}

void StartLogging(const std::string& format, const std::string& level) {
  json = format == "json";
  auto logger = spdlog::stderr_color_mt("finetuned");
  logger->set_pattern(
      json ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%eZ\",%v}" : "%Y-%m-%dT%H:%M:%S.%eZ %^%-7l%$ %v",
      spdlog::pattern_time_type::utc);
  spdlog::set_default_logger(logger);
  SetLogLevel(level);
  gpr_set_log_function(OnGrpcLog);
  google::protobuf::SetLogHandler(OnProtobufLog);
}

void SetLogLevel(const std::string& level) { spdlog::set_level(spdlog::level::from_str(level)); }

void Log(v1::Level level, std::string_view job_id, std::string_view text) {
  const auto spdlog_level = SpdlogLevel(level);
  if (!spdlog::should_log(spdlog_level)) return;
  const auto name = spdlog::level::to_string_view(spdlog_level);
  spdlog::log(spdlog_level, "{}",
              json ? JsonLogMessage({name.data(), name.size()}, job_id, text)
                   : TextLogMessage(job_id, text));
}

}  // namespace finetuned
