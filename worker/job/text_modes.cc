#include "worker/job/text_modes.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTokenizeUsage[] =
    "finetune-worker tokenize: token ids of texts, for scripts.\n\n"
    "usage: finetune-worker tokenize --tokenizer FILE [--add-special-tokens]\n\n"
    "  --tokenizer FILE         tokenizer.json, SentencePiece model, tiktoken rank file or\n"
    "                           tekken.json, or a directory that holds one\n"
    "  --add-special-tokens     add what the tokenizer's post-processor adds, such as BOS\n\n"
    "Standard input: one JSON string a line. Standard output: {\"ids\": [...]} or {\"error\": ...} "
    "for each.\n\n"
    "example: echo '\"Hello world\"' | finetune-worker tokenize --tokenizer "
    "models/smollm2/tokenizer.json\n";
constexpr char kDetokenizeUsage[] =
    "finetune-worker detokenize: text of token ids, for scripts.\n\n"
    "usage: finetune-worker detokenize --tokenizer FILE [--skip-special-tokens]\n\n"
    "  --tokenizer FILE         tokenizer.json, SentencePiece model, tiktoken rank file or\n"
    "                           tekken.json, or a directory that holds one\n"
    "  --skip-special-tokens    leave special tokens out of the text\n\n"
    "Standard input: one JSON array of ids a line. Standard output: {\"text\": ...} or {\"error\": "
    "...} for each. Ids that\n"
    "are no token are left out.\n\n"
    "example: echo '[19556, 905]' | finetune-worker detokenize --tokenizer "
    "models/smollm2/tokenizer.json\n";
constexpr char kRenderUsage[] =
    "finetune-worker render: renders a chat template, for scripts.\n\n"
    "usage: finetune-worker render --template FILE [--now ISO] [--spans]\n\n"
    "  --template FILE    the template (Jinja)\n"
    "  --now ISO          what strftime_now prints, such as 2026-01-31T12:00:00; default: the time "
    "now, UTC\n"
    "  --spans            say also which bytes of the text are the assistant's: \"assistant\": "
    "[[begin, end], ...]\n\n"
    "Standard input: one JSON object of variables a line. Standard output: {\"text\": ...} or "
    "{\"error\": ...} for each.\n\n"
    "example: echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
    "\"add_generation_prompt\": true}' \\\n"
    "           | finetune-worker render --template chat_template.jinja\n";

const char* UsageOf(std::string_view mode) {
  if (mode == "tokenize") return kTokenizeUsage;
  if (mode == "detokenize") return kDetokenizeUsage;
  if (mode == "render") return kRenderUsage;
  return nullptr;
}

// What the arguments say.
struct Options {
  std::string tokenizer;
  std::string chat_template;
  absl::Time now = absl::Now();
  bool add_special_tokens = false;
  bool skip_special_tokens = false;
  bool spans = false;
};

absl::StatusOr<absl::Time> ParseNow(const std::string& text) {
  // With an offset, or without as UTC; the time of day may be left out.
  for (const char* format :
       {absl::RFC3339_full, "%E4Y-%m-%dT%H:%M:%E*S", "%E4Y-%m-%d %H:%M:%E*S%Ez",
        "%E4Y-%m-%d %H:%M:%E*S", "%E4Y-%m-%dT%H:%M", "%E4Y-%m-%d %H:%M", "%E4Y-%m-%d"}) {
    absl::Time time;
    std::string error;
    if (absl::ParseTime(format, text, &time, &error)) return time;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--now is '", text, "'; it must be a time such as 2026-01-31T12:00:00"));
}

absl::StatusOr<Options> ParseArguments(std::string_view mode,
                                       const std::vector<std::string>& arguments) {
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i], value;
    const bool takes_value = name.starts_with("--tokenizer") || name.starts_with("--template") ||
                             name.starts_with("--now");
    if (const size_t equals = name.find('='); takes_value && equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else if (takes_value) {
      if (i + 1 == arguments.size())
        return absl::InvalidArgumentError(absl::StrCat(name, " needs a value"));
      value = arguments[++i];
    }
    const bool renders = mode == "render";
    if (name == "--tokenizer" && !renders) {
      options.tokenizer = value;
    } else if (name == "--add-special-tokens" && mode == "tokenize") {
      options.add_special_tokens = true;
    } else if (name == "--skip-special-tokens" && mode == "detokenize") {
      options.skip_special_tokens = true;
    } else if (name == "--template" && renders) {
      options.chat_template = value;
    } else if (name == "--spans" && renders) {
      options.spans = true;
    } else if (name == "--now" && renders) {
      FT_ASSIGN_OR_RETURN(options.now, ParseNow(value));
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown argument '", arguments[i], "'"));
    }
  }
  if (options.tokenizer.empty() && mode != "render")
    return absl::InvalidArgumentError("--tokenizer FILE is missing");
  if (options.chat_template.empty() && mode == "render")
    return absl::InvalidArgumentError("--template FILE is missing");
  return options;
}

// Writes all of `text`, or returns the errno.
int WriteAll(int output, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(output, text.data(), text.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

// Appends the answer to `line` to `out`, without a line break; `number` counts from 1.
using Answer = std::function<void(std::string_view line, size_t number, std::string& out)>;

// Answers every line of `input`; see RunTextMode.
int AnswerLines(int input, int output, const Answer& answer) {
  constexpr size_t kRead = 1 << 18, kWrite = 1 << 18;
  std::string pending, out;
  size_t begin = 0;    // of the first line in `pending` that is not answered
  size_t scanned = 0;  // no line break stands before it
  size_t number = 0;
  const auto flush = [&] {
    const int error = WriteAll(output, out);
    out.clear();
    return error;
  };
  int error = 0;
  for (bool at_end = false; !at_end && error == 0;) {
    pending.erase(0, begin);
    scanned -= begin;
    begin = 0;
    const size_t size = pending.size();
    pending.resize(size + kRead);
    const ssize_t got = read(input, pending.data() + size, kRead);
    pending.resize(size + (got > 0 ? static_cast<size_t>(got) : 0));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      error = errno;
      break;
    }
    at_end = got == 0;
    if (at_end && !pending.empty()) pending.push_back('\n');  // a last line may do without
    while (error == 0) {
      const size_t end = pending.find('\n', scanned);
      if (end == std::string::npos) break;
      answer(std::string_view(pending).substr(begin, end - begin), ++number, out);
      out.push_back('\n');
      begin = scanned = end + 1;
      if (out.size() >= kWrite) error = flush();
    }
    scanned = pending.size();
    if (error == 0) error = flush();
  }
  if (error == 0 || error == EPIPE) return 0;
  std::cerr << "finetune-worker: " << std::strerror(error) << "\n";
  return 1;
}

// Escaped beyond ASCII, as Python does it: some readers take U+2028 and others for the end of a
// line.
void AppendJson(const Json& value, std::string& out) {
  out += value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

void AppendError(size_t number, std::string_view what, std::string& out) {
  AppendJson({{"error", absl::StrCat("line ", number, ": ", std::string(what))}}, out);
}

// The text of a JSON string on a line of its own; false when it is none. `buffer` holds it when
// `line` does not.
bool ReadJsonString(std::string_view line, std::string& buffer, std::string_view& text) {
  // Most strings are plain: then the text is what stands between the quotes.
  if (line.size() >= 2 && line.front() == '"' && line.back() == '"') {
    text = line.substr(1, line.size() - 2);
    bool plain = true;
    for (const char c : text)
      plain &= c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20;
    if (plain && unicode::ValidUtf8Prefix(text) == text.size()) return true;
  }
  Json value = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_string()) return false;
  buffer = std::move(value.get_ref<std::string&>());
  text = buffer;
  return true;
}

void TokenizeLine(const Tokenizer& tokenizer, bool add_special_tokens, std::string_view line,
                  size_t number, std::string& out) {
  std::string buffer;
  std::string_view text;
  if (!ReadJsonString(line, buffer, text)) return AppendError(number, "is no JSON string", out);
  out += "{\"ids\": [";
  bool first = true;
  for (const int32_t id : tokenizer.Encode(text, add_special_tokens)) {
    if (!first) out += ", ";
    first = false;
    char digits[16];
    const auto end = std::to_chars(digits, digits + sizeof digits, id).ptr;
    out.append(digits, end);
  }
  out += "]}";
}

void DetokenizeLine(const Tokenizer& tokenizer, bool skip_special_tokens, std::string_view line,
                    size_t number, std::string& out) {
  const Json value = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!value.is_array()) return AppendError(number, "is no JSON array of token ids", out);
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const Json& id : value) {
    if (!id.is_number_unsigned())
      return AppendError(number, "holds something that is no token id, an integer from 0", out);
    // Greater ones are no token of any vocabulary.
    if (id.get<uint64_t>() <= INT32_MAX) ids.push_back(id.get<int32_t>());
  }
  AppendJson({{"text", tokenizer.Decode(ids, skip_special_tokens)}}, out);
}

}  // namespace

bool IsTextMode(std::string_view mode) { return UsageOf(mode) != nullptr; }

int RunTextMode(std::string_view mode, const std::vector<std::string>& arguments, int input,
                int output) {
  for (const std::string& argument : arguments) {
    if (argument == "--help" || argument == "-h")
      return WriteAll(output, UsageOf(mode)) == 0 ? 0 : 1;
  }
  const auto fail = [mode](std::string_view what) {
    std::cerr << "finetune-worker " << mode << ": " << what << "\n";
    return 2;
  };
  const absl::StatusOr<Options> options = ParseArguments(mode, arguments);
  if (!options.ok())
    return fail(absl::StrCat(options.status().message(), "; see finetune-worker ",
                             std::string(mode), " --help"));

  if (mode == "render") {
    absl::StatusOr<std::string> source = ReadFile(options->chat_template);
    if (!source.ok()) return fail(std::string(source.status().message()));
    const auto parsed = ChatTemplate::Parse(*std::move(source), options->chat_template);
    if (!parsed.ok()) {
      const std::string what(parsed.status().message());
      AnswerLines(input, output, [&what](std::string_view, size_t number, std::string& out) {
        AppendError(number, what, out);
      });
      return fail(what);
    }
    return AnswerLines(input, output, [&](std::string_view line, size_t number, std::string& out) {
      const Json answer = RenderLine(**parsed, line, options->now, options->spans);
      if (const auto error = answer.find("error"); error != answer.end()) {
        AppendError(number, error->get_ref<const std::string&>(), out);
      } else {
        AppendJson(answer, out);
      }
    });
  }

  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::FromFile(options->tokenizer);
  if (!tokenizer.ok()) return fail(std::string(tokenizer.status().message()));
  return AnswerLines(input, output, [&](std::string_view line, size_t number, std::string& out) {
    if (mode == "tokenize") {
      TokenizeLine(**tokenizer, options->add_special_tokens, line, number, out);
    } else {
      DetokenizeLine(**tokenizer, options->skip_special_tokens, line, number, out);
    }
  });
}

}  // namespace finetuned
