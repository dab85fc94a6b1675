// A template engine for chat templates: jinja2 as transformers configures it
// (ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls and {% generation
// %}; tojson is json.dumps(ensure_ascii=False); raise_exception and strftime_now are there). Ours,
// because a loss mask needs to know which output came from which message.
//
// Equal to jinja2 in text and in what is an error. Knowingly different:
// - integers have 64 bits; going beyond is an error
// - include, import, extends, autoescape true, the filters random and urlize, pprint of dicts and
//   of long values, and lipsum are errors when reached
// - generators (what map, select … return) compute all their items at the first use of one
// - jinja2's folding of constants is not followed where it changes a result: "-2 ** x" is
//   (-2) ** x here, and slicing a number is an error even if the number is a literal
// - text marked by escape or safe stays marked through + and captures, not through string methods
// - a name that a block reads and later sets is read from outside until then (jinja2 resolves it
//   for the block as a whole)
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "worker/text/jinja_value.h"

namespace finetuned::jinja {

struct Syntax;

struct RenderSettings {
  absl::Time now;                               // what strftime_now prints …
  absl::TimeZone zone = absl::UTCTimeZone();    // … in this zone
  int64_t max_steps = 50'000'000;               // expressions and statements evaluated
  size_t max_memory_bytes = size_t{512} << 20;  // of all values made and the output together
  int max_call_depth = 200;                     // of macros and recursive loops
};

struct Rendering {
  std::string text;
  std::vector<Mark> marks;  // by end offset; see Mark
};

class Template {
 public:
  // Errors: InvalidArgument "template NAME:LINE:COLUMN: what is wrong".
  static absl::StatusOr<Template> Parse(std::string_view source, std::string_view name);

  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // Renders with these top-level variables (an object). The elements of the list variable
  // `messages_name` are tracked: Rendering::marks tells which bytes each loop iteration over one of
  // them wrote. Errors: InvalidArgument with the template's position (raise_exception's text
  // included); ResourceExhausted for a limit; FailedPrecondition if the text of a generation block
  // was altered after it, so that its place is unknown. Thread-safe. An empty `messages_name` asks
  // for the text alone: no marks, and such a block is no error.
  absl::StatusOr<Rendering> Render(const nlohmann::ordered_json& variables,
                                   const RenderSettings& settings,
                                   std::string_view messages_name = "messages") const;

  bool has_generation_block() const;

 private:
  explicit Template(std::unique_ptr<const Syntax> syntax);
  std::unique_ptr<const Syntax> syntax_;
};

// json.dumps as Python does it; indent < 0: one line. `indent_text` is one level's indentation.
// Fails (returns false, *error says why) on values that JSON cannot hold.
struct JsonStyle {
  bool ensure_ascii = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
bool ToJson(const Value& value, const JsonStyle& style, std::string* out, std::string* error);

// Python's datetime.strftime for the C locale.
std::string Strftime(std::string_view format, absl::Time time, absl::TimeZone zone);

}  // namespace finetuned::jinja
