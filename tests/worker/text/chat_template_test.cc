#include "worker/text/chat_template.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;
using Strings = std::vector<std::string>;

std::shared_ptr<const ChatTemplate> Parse(const std::string& source) {
  auto parsed = ChatTemplate::Parse(source, "t");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : nullptr;
}

std::string Asset(const std::string& name) {
  const std::filesystem::path root = std::getenv("FINETUNED_SOURCE_DIR");
  std::ifstream file(root / "tests/assets/chat_templates" / (name + ".jinja"), std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

RenderOptions Options() {
  RenderOptions options;
  options.bos_token = "<s>";
  options.eos_token = "</s>";
  options.now = absl::FromUnixSeconds(1736068023);
  return options;
}

// The texts of the assistant spans.
Strings Trained(const ChatTemplate& chat_template, const Json& messages,
                const RenderOptions& options = Options()) {
  const auto chat = chat_template.Render(messages, options);
  EXPECT_TRUE(chat.ok()) << chat.status();
  Strings out;
  if (!chat.ok()) return out;
  for (const ByteSpan& span : chat->assistant)
    out.push_back(chat->text.substr(span.begin, span.end - span.begin));
  return out;
}

Json Dialogue() {
  return MessagesJson(
      {{"user", "Hi"}, {"assistant", " Hello "}, {"user", "Hello"}, {"assistant", "Hi"}});
}

Strings TrainedByAsset(const std::string& name, const Json& messages) {
  return Trained(*Parse(Asset(name)), messages);
}

TEST(ChatTemplate, SpansOfRealTemplates) {
  EXPECT_EQ(TrainedByAsset("llama2", Dialogue()), (Strings{" Hello </s>", " Hi </s>"}));
  EXPECT_EQ(TrainedByAsset("llama3", Dialogue()), (Strings{"Hello<|eot_id|>", "Hi<|eot_id|>"}));
  EXPECT_EQ(TrainedByAsset("llama3_1", Dialogue()), (Strings{"Hello<|eot_id|>", "Hi<|eot_id|>"}));
  EXPECT_EQ(TrainedByAsset("llama3_2", Dialogue()), (Strings{"Hello<|eot_id|>", "Hi<|eot_id|>"}));
  EXPECT_EQ(TrainedByAsset("qwen2_5", Dialogue()), (Strings{" Hello <|im_end|>", "Hi<|im_end|>"}));
  EXPECT_EQ(TrainedByAsset("gemma", Dialogue()),
            (Strings{"Hello<end_of_turn>", "Hi<end_of_turn>"}));
  EXPECT_EQ(TrainedByAsset("phi3_5", Dialogue()), (Strings{" Hello <|end|>", "Hi<|end|>"}));
  EXPECT_EQ(TrainedByAsset("mistral_v2v3", Dialogue()), (Strings{" Hello</s>", " Hi</s>"}));
  EXPECT_EQ(TrainedByAsset("deepseek_v2", Dialogue()), (Strings{" Hello </s>", "Hi</s>"}));
}

TEST(ChatTemplate, SystemTurnsAreNotTrained) {
  Json messages = Dialogue();
  messages.insert(messages.begin(), Json{{"role", "system"}, {"content", "Hi Hello"}});
  EXPECT_EQ(TrainedByAsset("llama2", messages), (Strings{" Hello </s>", " Hi </s>"}));
  EXPECT_EQ(TrainedByAsset("mistral_v2v3", messages), (Strings{" Hello</s>", " Hi</s>"}));
  EXPECT_EQ(TrainedByAsset("qwen2_5", messages), (Strings{" Hello <|im_end|>", "Hi<|im_end|>"}));
}

TEST(ChatTemplate, Qwen3DropsTheReasoningOfEarlierTurns) {
  const Json messages = MessagesJson({{"user", "2+2"},
                                      {"assistant", "<think>\nadd\n</think>\n\n4"},
                                      {"user", "3+3"},
                                      {"assistant", "<think>\nagain\n</think>\n\n6"}});
  EXPECT_EQ(TrainedByAsset("qwen3", messages),
            (Strings{"4<|im_end|>", "<think>\nagain\n</think>\n\n6<|im_end|>"}));
}

TEST(ChatTemplate, ToolCallsAreTrainedAndToolResultsAreNot) {
  const Json messages = Json::parse(R"([
    {"role": "user", "content": "Time?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "CET"}}}]},
    {"role": "tool", "content": "12:00"},
    {"role": "assistant", "content": "Noon."}])");
  EXPECT_EQ(TrainedByAsset("qwen2_5", messages),
            (Strings{"<tool_call>\n{\"name\": \"clock\", \"arguments\": {\"zone\": "
                     "\"CET\"}}\n</tool_call><|im_end|>",
                     "Noon.<|im_end|>"}));
}

TEST(ChatTemplate, GenerationBlocksAreTakenAsTheyAre) {
  EXPECT_EQ(TrainedByAsset("qwen2_5_training", Dialogue()),
            (Strings{"\n Hello <|im_end|>\n", "\nHi<|im_end|>\n"}));
  // In a macro, too: the engine follows the text to where it is written.
  const auto in_macro = Parse(
      "{% macro say(m) %}<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}{% "
      "endmacro %}"
      "{% for m in messages %}{% if m.role == 'assistant' %}{{ 'é' ~ say(m) }}{% endif %}{% endfor "
      "%}");
  EXPECT_EQ(Trained(*in_macro, Dialogue()), (Strings{" Hello ", "Hi"}));
  const auto altered = Parse(
      "{% macro say(m) %}{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}"
      "{% for m in messages %}{{ say(m)|upper }}{% endfor %}");
  EXPECT_EQ(altered->Render(Dialogue(), Options()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// The prompt opens a thought that history does not have; content may begin like it.
TEST(ChatTemplate, PromptThatDiffersFromHistory) {
  const auto chat_template = Parse(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
      "{% if add_generation_prompt %}<|assistant|><think>{% endif %}");
  const Json messages = MessagesJson(
      {{"user", "a"}, {"assistant", "<tool>"}, {"user", "<"}, {"assistant", "<think>x"}});
  EXPECT_EQ(Trained(*chat_template, messages), (Strings{"<tool><|end|>", "x<|end|>"}));
}

TEST(ChatTemplate, AssistantFirst) {
  const Json messages = MessagesJson({{"assistant", "Welcome"}, {"user", "x"}, {"assistant", "y"}});
  EXPECT_EQ(TrainedByAsset("llama3", messages), (Strings{"Welcome<|eot_id|>", "y<|eot_id|>"}));
  EXPECT_EQ(TrainedByAsset("qwen3", messages),
            (Strings{"Welcome<|im_end|>", "<think>\n\n</think>\n\ny<|im_end|>"}));
}

TEST(ChatTemplate, PromptWrittenInTheLoop) {
  const auto chat_template = Parse(
      "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content ~ eos_token }}\n"
      "{% if loop.last and add_generation_prompt %}<|assistant|>\n{% endif %}{% endfor %}");
  EXPECT_EQ(Trained(*chat_template, Dialogue()), (Strings{" Hello </s>", "Hi</s>"}));
  RenderOptions options = Options();
  options.add_generation_prompt = true;
  EXPECT_EQ(Trained(*chat_template, Dialogue(), options), (Strings{" Hello </s>", "Hi</s>"}));
}

TEST(ChatTemplate, EndOfTurnAfterTheLoop) {
  const auto chat_template = Parse(
      "{% for m in messages %}{{ 'Q: ' if m.role == 'user' else 'A: ' }}{{ m.content }}\n{% endfor "
      "%}{{ eos_token }}"
      "{% if add_generation_prompt %}A: {% endif %}");
  EXPECT_EQ(Trained(*chat_template, MessagesJson({{"user", "x"}, {"assistant", "y \n"}})),
            (Strings{"y \n\n</s>"}));
}

TEST(ChatTemplate, WithoutALoopOverMessagesPrefixesAreCompared) {
  const auto by_index = Parse(
      "{% for i in range(messages|length) %}<{{ messages[i].role }}>{{ messages[i].content "
      "}}<e>\n{% endfor %}"
      "{% if add_generation_prompt %}<assistant>{% endif %}");
  EXPECT_EQ(Trained(*by_index, Dialogue()), (Strings{" Hello <e>", "Hi<e>"}));
  const auto reversed =
      Parse("{% for i in range(messages|length) %}{{ messages[-1 - i].content }}{% endfor %}");
  EXPECT_EQ(reversed->Render(Dialogue(), Options()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ChatTemplate, SecondLoopThatWritesNothingDoesNotConfuse) {
  const auto chat_template = Parse(
      "{% for m in messages %}{% for n in messages %}{% set z = n.content %}{% endfor %}[{{ m.role "
      "}}]{{ m.content }}[/]"
      "{% endfor %}{% for m in messages|reverse %}{% endfor %}{% if add_generation_prompt "
      "%}[assistant]{% endif %}");
  EXPECT_EQ(Trained(*chat_template, Dialogue()), (Strings{" Hello [/]", "Hi[/]"}));
}

TEST(ChatTemplate, ErrorsNamePlaceAndReason) {
  const auto bad = ChatTemplate::Parse("a\n{% if %}", "model");
  EXPECT_EQ(bad.status().message().substr(0, 18), "template model:2:7");
  const auto gemma = Parse(Asset("gemma"));
  const auto raised = gemma->Render(MessagesJson({{"system", "x"}}), Options());
  EXPECT_EQ(raised.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(raised.status().message().find("System role not supported"), absl::string_view::npos);
  EXPECT_EQ(gemma->Render(Json("x"), Options()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplate, RenderLineNeverFails) {
  const auto chat_template = Parse("{{ x }}{{ y.z }}");
  const auto rendered = [&](const char* line, bool with_spans) {
    return RenderLine(*chat_template, line, absl::Now(), with_spans).dump();
  };
  EXPECT_EQ(rendered(R"({"x": "é", "y": {"z": 1}})", false), R"({"text":"é1"})");
  EXPECT_EQ(rendered(R"({"x": "é", "y": {"z": 1}})", true), R"({"text":"é1","assistant":[]})");
  EXPECT_EQ(rendered(R"({"x": 1})", true), R"({"error":"template t:1:12: 'y' is undefined"})");
  for (const char* line : {"", "[]", "{", "\xff", "{\"x\": \"\xff\"}"}) {
    EXPECT_EQ(rendered(line, false),
              R"({"error":"each line must be a JSON object of variables"})");
  }
}

TEST(ChatTemplate, TextNeedsNoSpans) {
  // Text of a generation block that is altered after it has no known place, but it has a text.
  const auto chat_template = Parse(
      "{% set x %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endset %}{{ x|upper }}");
  const Json variables = {{"messages", {{{"role", "assistant"}, {"content", "yes"}}}}};
  const auto text = chat_template->RenderText(variables, absl::Now());
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, "YES");
  EXPECT_FALSE(chat_template->RenderVariables(variables, absl::Now()).ok());
}

// Registry: a file in templates/ is a line in the .def.
TEST(BuiltinTemplates, EveryFileIsListed) {
  const std::filesystem::path root = std::getenv("FINETUNED_SOURCE_DIR");
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root / "worker/text/templates")) {
    files += entry.path().extension() == ".cc";
  }
  EXPECT_EQ(files, BuiltinTemplates().size());
  EXPECT_EQ(FindBuiltinTemplate("nope"), nullptr);
}

class BuiltinTemplateTest : public testing::TestWithParam<const BuiltinTemplate*> {};

TEST_P(BuiltinTemplateTest, WritesItsMarkersAndItsTurnsReadBack) {
  const auto chat_template = Parse(GetParam()->source);
  ASSERT_NE(chat_template, nullptr);
  EXPECT_FALSE(std::string_view(GetParam()->description).empty());
  EXPECT_EQ(FindBuiltinTemplate(GetParam()->name), GetParam());
  const Strings questions = {"What is 1+1?", "And\n2+2?", "é世🙂"};
  const Strings answers = {"Two.", "Four,\n\nI say.", "é世🙂"};
  Json messages = Json::array();
  for (size_t i = 0; i < answers.size(); ++i) {
    messages.push_back({{"role", "user"}, {"content", questions[i]}});
    messages.push_back({{"role", "assistant"}, {"content", answers[i]}});
  }
  const auto chat = chat_template->Render(messages, Options());
  ASSERT_TRUE(chat.ok()) << chat.status();
  // Every trained piece is its answer with the end of the turn, and between the pieces stand the
  // questions.
  ASSERT_EQ(chat->assistant.size(), answers.size());
  size_t previous = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const ByteSpan span = chat->assistant[i];
    const std::string trained = chat->text.substr(span.begin, span.end - span.begin);
    const std::string between = chat->text.substr(previous, span.begin - previous);
    EXPECT_NE(between.find(questions[i]), std::string::npos) << between;
    const size_t at = trained.find(answers[i]);
    ASSERT_NE(at, std::string::npos) << trained;
    EXPECT_LE(at, 1u) << trained;                                  // at most a blank before it
    EXPECT_GT(trained.size(), at + answers[i].size()) << trained;  // and its end marker after it
    previous = span.end;
    // What generation is given is what training saw before the answer.
    RenderOptions prompt = Options();
    prompt.add_generation_prompt = true;
    Json history(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(2 * i + 1));
    const auto asked = chat_template->Render(history, prompt);
    ASSERT_TRUE(asked.ok()) << asked.status();
    EXPECT_EQ(asked->text, chat->text.substr(0, span.begin));
  }
  Json with_system = messages;
  with_system.insert(with_system.begin(), Json{{"role", "system"}, {"content", "Be brief."}});
  const auto system = chat_template->Render(with_system, Options());
  std::string all = chat->text;
  if (system.ok()) {
    EXPECT_NE(system->text.find("Be brief."), std::string::npos);
    EXPECT_EQ(system->assistant.size(), answers.size());
    all += system->text;
  }
  for (const char* marker : GetParam()->markers)
    EXPECT_NE(all.find(marker), std::string::npos) << marker;
}

INSTANTIATE_TEST_SUITE_P(All, BuiltinTemplateTest, testing::ValuesIn([] {
                           std::vector<const BuiltinTemplate*> all;
                           for (const BuiltinTemplate& builtin : BuiltinTemplates())
                             all.push_back(&builtin);
                           return all;
                         }()),
                         [](const auto& info) {
                           std::string name = info.param->name;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace finetuned
