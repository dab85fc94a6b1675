#include "worker/text/chat_template.h"

#include <algorithm>
#include <map>
#include <optional>

#include "proto/base/status_macros.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;

// Private-use characters: no template treats them specially, no tokenizer's control string holds
// them.
constexpr std::string_view kSentinel = "\uE0F1sentinel\uE0F2";

jinja::RenderSettings Settings(absl::Time now) {
  jinja::RenderSettings settings;
  settings.now = now;
  return settings;
}

size_t CommonPrefix(std::string_view a, std::string_view b) {
  size_t n = 0;
  while (n < a.size() && n < b.size() && a[n] == b[n]) ++n;
  while (n > 0 && n < a.size() && (a[n] & 0xC0) == 0x80) --n;  // not inside a character
  return n;
}

bool StartsWith(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

std::string_view WithoutTrailingSpace(std::string_view text) {
  return jinja::Strip(text, nullptr, false, true);
}

std::string_view StringField(const Json& message, const char* name) {
  const auto it = message.find(name);
  return it != message.end() && it->is_string()
             ? std::string_view(it->get_ref<const std::string&>())
             : std::string_view();
}

// Finds the spans of one conversation (rules 2 and 3 of the header).
class SpanFinder {
 public:
  SpanFinder(const jinja::Template& parsed, const Json& variables, absl::Time now,
             const jinja::Rendering& full)
      : template_(parsed), variables_(variables), settings_(Settings(now)), full_(full) {
    const auto it = variables.find("eos_token");
    if (it != variables.end() && it->is_string()) eos_token_ = it->get<std::string>();
    const auto prompt = variables.find("add_generation_prompt");
    has_prompt_ = prompt != variables.end() && prompt->is_boolean() && prompt->get<bool>();
  }

  absl::StatusOr<std::vector<ByteSpan>> Run() {
    std::vector<ByteSpan> spans;
    const Json& messages = variables_.at("messages");
    for (size_t i = 0; i < messages.size(); ++i) {
      if (!messages[i].is_object() || StringField(messages[i], "role") != "assistant") continue;
      std::optional<ByteSpan> region = Region(full_, static_cast<int>(i));
      absl::StatusOr<ByteSpan> span;
      if (region.has_value()) {
        span = InRegion(i, *region);
      } else if (AnyRegion()) {
        continue;  // the template loops over the messages and writes nothing of this one
      } else {
        span = ByPrefixes(i);
      }
      FT_RETURN_IF_ERROR(span.status());
      if (span->begin >= span->end) continue;
      if (!spans.empty() && span->begin < spans.back().end) {
        return absl::FailedPreconditionError(
            jinja::Cat("the template writes message ", i,
                       " before an earlier one: assistant turns cannot be told apart"));
      }
      spans.push_back(*span);
    }
    return spans;
  }

 private:
  static std::optional<ByteSpan> Region(const jinja::Rendering& rendering, int message) {
    const jinja::Mark* best = nullptr;
    for (const jinja::Mark& mark : rendering.marks) {
      if (mark.kind != jinja::Mark::kMessage || mark.message != message) continue;
      if (best == nullptr || mark.depth <= best->depth) best = &mark;
    }
    if (best == nullptr) return std::nullopt;
    return ByteSpan{best->begin, best->end};
  }

  bool AnyRegion() const {
    return std::any_of(full_.marks.begin(), full_.marks.end(),
                       [](const jinja::Mark& mark) { return mark.kind == jinja::Mark::kMessage; });
  }

  absl::StatusOr<jinja::Rendering> RenderPrefix(size_t count, bool prompt) const {
    Json variables = variables_;
    Json& messages = variables["messages"];
    messages.erase(messages.begin() + static_cast<ptrdiff_t>(count), messages.end());
    variables["add_generation_prompt"] = prompt;
    return template_.Render(variables, settings_);
  }

  // What the prefix before message i says, with a generation prompt, beyond the start of its
  // region; nothing if the template refuses it.
  std::optional<std::string> Header(size_t i, size_t region_begin) const {
    const absl::StatusOr<jinja::Rendering> prompted = RenderPrefix(i, true);
    if (!prompted.ok()) return std::nullopt;  // templates may refuse a conversation that ends there
    const std::string_view before = std::string_view(full_.text).substr(0, region_begin);
    if (StartsWith(prompted->text, before)) return prompted->text.substr(region_begin);
    // The history is written differently (dropped reasoning): take the prompt as what it adds to
    // the same prefix.
    const absl::StatusOr<jinja::Rendering> plain = RenderPrefix(i, false);
    if (!plain.ok()) return std::nullopt;
    return prompted->text.substr(CommonPrefix(plain->text, prompted->text));
  }

  // Offset of message i's content in its region, found by rendering with other content; npos if it
  // cannot be told.
  size_t ContentOffset(size_t i) const {
    Json variables = variables_;
    variables["messages"][i]["content"] = std::string(kSentinel);
    const absl::StatusOr<jinja::Rendering> rendering = template_.Render(variables, settings_);
    if (!rendering.ok()) return std::string::npos;
    const std::optional<ByteSpan> region = Region(*rendering, static_cast<int>(i));
    if (!region.has_value()) return std::string::npos;
    const size_t at = rendering->text.find(kSentinel, region->begin);
    return at == std::string::npos || at >= region->end ? std::string::npos : at - region->begin;
  }

  absl::StatusOr<ByteSpan> InRegion(size_t i, ByteSpan region) {
    const std::string_view body =
        std::string_view(full_.text).substr(region.begin, region.end - region.begin);
    const size_t begin = HeaderEnd(i, region, body);
    return ByteSpan{region.begin + begin, End(i, region, begin)};
  }

  // Offset in the region's text at which the model takes over. Leaves the prompt in
  // current_header_.
  size_t HeaderEnd(size_t i, ByteSpan region, std::string_view body) {
    // Turns that follow the same role share one prompt, so it is rendered once.
    const std::string previous(i == 0 ? std::string_view()
                                      : StringField(variables_.at("messages")[i - 1], "role"));
    const auto known = headers_.find(previous);
    if (known != headers_.end() && StartsWith(body, known->second)) {
      current_header_ = known->second;
      return current_header_.size();
    }
    const std::optional<std::string> header = Header(i, region.begin);
    current_header_ = header.value_or("");
    if (header.has_value() && StartsWith(body, *header)) {
      headers_.emplace(previous, *header);
      return header->size();
    }
    // The template refuses that prefix or writes something of its own before the turn (a BOS token,
    // a default system turn): the prompt behind the whole conversation tells what to look for.
    const size_t content = ContentOffset(i);
    const std::string& prompt = LastPrompt();
    const size_t at = prompt.empty() ? std::string_view::npos : body.find(prompt);
    if (at != std::string_view::npos && content != std::string_view::npos &&
        at + prompt.size() <= content) {
      current_header_ = prompt;
      return at + prompt.size();
    }
    if (current_header_.empty()) current_header_ = prompt;
    return std::min(CommonPrefix(body, current_header_), content);
  }

  const std::string& LastPrompt() {
    if (last_prompt_.has_value()) return *last_prompt_;
    last_prompt_.emplace();
    const size_t count = variables_.at("messages").size();
    const absl::StatusOr<jinja::Rendering> prompted = RenderPrefix(count, true);
    const absl::StatusOr<jinja::Rendering> plain = RenderPrefix(count, false);
    if (prompted.ok() && plain.ok()) {
      last_prompt_ = prompted->text.substr(CommonPrefix(plain->text, prompted->text));
    }
    return *last_prompt_;
  }

  size_t End(size_t i, ByteSpan region, size_t header) const {
    const std::string_view text = full_.text;
    size_t end = region.end;
    const bool last = i + 1 == variables_.at("messages").size();
    if (last && has_prompt_ && region.end == text.size() && !current_header_.empty() &&
        text.substr(header + region.begin).size() >= current_header_.size() &&
        text.substr(text.size() - current_header_.size()) == current_header_) {
      end -= current_header_.size();  // the iteration wrote the next turn's prompt as well
    }
    const std::string_view body = text.substr(region.begin, end - region.begin);
    const std::string_view content = StringField(variables_.at("messages")[i], "content");
    const size_t at = content.empty() ? std::string_view::npos : body.rfind(content);
    const bool nothing_behind = at != std::string_view::npos &&
                                WithoutTrailingSpace(body.substr(at + content.size())).empty();
    size_t stop = region.begin + WithoutTrailingSpace(body).size();
    if (nothing_behind) {
      stop = region.begin + at + content.size();
      if (!eos_token_.empty() && StartsWith(text.substr(end), eos_token_))
        stop = end + eos_token_.size();
    }
    return std::max(stop, region.begin + header);
  }

  absl::StatusOr<ByteSpan> ByPrefixes(size_t i) const {
    const std::string_view text = full_.text;
    absl::StatusOr<jinja::Rendering> before = RenderPrefix(i, true);
    if (!before.ok() || !StartsWith(text, before->text)) before = RenderPrefix(i, false);
    absl::StatusOr<jinja::Rendering> through = RenderPrefix(i + 1, false);
    if (!before.ok() || !through.ok() || !StartsWith(text, before->text) ||
        !StartsWith(text, WithoutTrailingSpace(through->text))) {
      return absl::FailedPreconditionError(
          jinja::Cat("cannot tell which text is assistant message ", i,
                     ": the template does not loop over the messages and its prefixes do not "
                     "match; put {% generation %} … "
                     "{% endgeneration %} around what the assistant says"));
    }
    return ByteSpan{before->text.size(), WithoutTrailingSpace(through->text).size()};
  }

  const jinja::Template& template_;
  const Json& variables_;
  const jinja::RenderSettings settings_;
  const jinja::Rendering& full_;
  std::string eos_token_;
  bool has_prompt_ = false;
  std::map<std::string, std::string> headers_;  // by the role of the message before the turn
  std::optional<std::string> last_prompt_;
  std::string current_header_;  // of the turn at hand
};

std::vector<ByteSpan> GenerationSpans(const jinja::Rendering& rendering) {
  std::vector<ByteSpan> spans;
  for (const jinja::Mark& mark : rendering.marks) {
    if (mark.kind == jinja::Mark::kGeneration) spans.push_back({mark.begin, mark.end});
  }
  std::sort(spans.begin(), spans.end(), [](ByteSpan a, ByteSpan b) { return a.begin < b.begin; });
  // A block inside another adds nothing.
  std::vector<ByteSpan> out;
  for (const ByteSpan& span : spans) {
    if (out.empty() || span.begin >= out.back().end) {
      out.push_back(span);
    } else {
      out.back().end = std::max(out.back().end, span.end);
    }
  }
  return out;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, std::string name, jinja::Template parsed)
    : source_(std::move(source)), name_(std::move(name)), template_(std::move(parsed)) {}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string source,
                                                                        std::string name) {
  FT_ASSIGN_OR_RETURN(jinja::Template parsed, jinja::Template::Parse(source, name));
  return std::shared_ptr<const ChatTemplate>(
      new ChatTemplate(std::move(source), std::move(name), std::move(parsed)));
}

absl::StatusOr<RenderedChat> ChatTemplate::RenderVariables(const Json& variables,
                                                           absl::Time now) const {
  FT_ASSIGN_OR_RETURN(jinja::Rendering rendering, template_.Render(variables, Settings(now)));
  RenderedChat chat;
  const auto messages = variables.find("messages");
  if (has_generation_block()) {
    chat.assistant = GenerationSpans(rendering);
  } else if (messages != variables.end() && messages->is_array()) {
    FT_ASSIGN_OR_RETURN(chat.assistant, SpanFinder(template_, variables, now, rendering).Run());
  }
  chat.text = std::move(rendering.text);
  return chat;
}

absl::StatusOr<std::string> ChatTemplate::RenderText(const Json& variables, absl::Time now) const {
  FT_ASSIGN_OR_RETURN(jinja::Rendering rendering,
                      template_.Render(variables, Settings(now), /*messages_name=*/""));
  return std::move(rendering.text);
}

absl::StatusOr<RenderedChat> ChatTemplate::Render(const Json& messages,
                                                  const RenderOptions& options) const {
  if (!messages.is_array())
    return absl::InvalidArgumentError("messages must be an array of {\"role\", \"content\"}");
  Json variables = Json::object();
  variables["messages"] = messages;
  variables["tools"] = options.tools;
  variables["documents"] = options.documents;
  variables["add_generation_prompt"] = options.add_generation_prompt;
  const auto token = [&](const char* name, const std::string& text) {
    if (!text.empty()) variables[name] = text;
  };
  token("bos_token", options.bos_token);
  token("eos_token", options.eos_token);
  token("pad_token", options.pad_token);
  token("unk_token", options.unk_token);
  if (options.extra_variables.is_object()) {
    for (const auto& [name, value] : options.extra_variables.items()) variables[name] = value;
  }
  return RenderVariables(variables, options.now);
}

Json MessagesJson(absl::Span<const Message> messages) {
  Json out = Json::array();
  for (const Message& message : messages)
    out.push_back({{"role", message.role}, {"content", message.content}});
  return out;
}

Json RenderLine(const ChatTemplate& chat_template, std::string_view line, absl::Time now,
                bool with_spans) {
  const Json variables = Json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!variables.is_object()) return {{"error", "each line must be a JSON object of variables"}};
  if (!with_spans) {
    const absl::StatusOr<std::string> text = chat_template.RenderText(variables, now);
    if (!text.ok()) return {{"error", std::string(text.status().message())}};
    return {{"text", *text}};
  }
  const absl::StatusOr<RenderedChat> chat = chat_template.RenderVariables(variables, now);
  if (!chat.ok()) return {{"error", std::string(chat.status().message())}};
  Json answer = {{"text", chat->text}, {"assistant", Json::array()}};
  for (const ByteSpan& span : chat->assistant)
    answer["assistant"].push_back({span.begin, span.end});
  return answer;
}

}  // namespace finetuned
