#include "worker/data/shapes.h"

#include "gmock/gmock.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

// "role:content|role:content" of a record after mapping and role checks, or the bad record's
// reason.
std::string Mapped(std::string_view json, const Columns& columns = {}, Notes* notes_out = nullptr) {
  const Value& record = Json(json);
  Notes notes;
  auto conversation = MapRecord(record, DetectShape(record, columns), columns, notes);
  if (!conversation.ok()) return "!" + ReasonOfBadRecord(conversation.status());
  const absl::Status roles = CheckRoles(*conversation, notes);
  if (notes_out != nullptr) *notes_out = notes;
  if (!roles.ok()) return "!" + ReasonOfBadRecord(roles);
  std::string out;
  for (const Turn& turn : conversation->turns)
    out += (out.empty() ? "" : "|") + turn.role + ":" + turn.content + turn.extra_json;
  return out;
}

TEST(ShapesTest, DetectionAndMapping) {
  struct Case {
    const char *json, *shape, *turns;
  };
  const Case cases[] = {
      {R"({"instruction": "i", "response": "r"})", "instruction", "user:i|assistant:r"},
      {R"({"prompt": "p", "response": "r"})", "instruction", "user:p|assistant:r"},
      {R"({"question": "q", "answer": "a"})", "instruction", "user:q|assistant:a"},
      {R"({"input": "q", "output": "a"})", "instruction", "user:q|assistant:a"},
      // The first present, non-null key of the list in order.
      {R"({"question": "q", "instruction": null, "prompt": "p", "answer": "a"})", "instruction",
       "user:p|assistant:a"},
      {R"({"instruction": "i", "output": "o"})", "instruction", "user:i|assistant:o"},
      {R"({"instruction": "i", "input": "", "output": "o"})", "alpaca", "user:i|assistant:o"},
      {R"({"instruction": "i", "input": "x", "output": "o"})", "alpaca", "user:i\n\nx|assistant:o"},
      {R"({"instruction": "i", "input": null, "output": "o", "history": [["a", "b"]]})", "alpaca",
       "user:a|assistant:b|user:i|assistant:o"},
      {R"({"instruction": "i", "input": "", "output": "o", "system": "s"})", "alpaca",
       "system:s|user:i|assistant:o"},
      // Context is the system turn where no other is, else part of the instruction (Dolly, and
      // both).
      {R"({"instruction": "i", "context": "c", "response": "r"})", "instruction",
       "system:c|user:i|assistant:r"},
      {R"({"instruction": "i", "context": "", "response": "r"})", "instruction",
       "user:i|assistant:r"},
      {R"({"instruction": "i", "context": "c", "response": "r", "system": "s"})", "instruction",
       "system:s|user:i\n\nc|assistant:r"},
      {R"({"instruction": "i", "input_context": "c", "context": "d", "response": "r", "system_prompt": "s"})",
       "instruction", "system:s|user:i\n\nc|assistant:r"},
      {R"({"question": 6, "answer": 7.5})", "instruction", "user:6|assistant:7.5"},
      {R"({"question": "list", "answer": [1, 2]})", "instruction", "user:list|assistant:[1,2]"},
      {R"({"prompt": "p", "completion": "c"})", "prompt_completion", "user:p|assistant:c"},
      {R"({"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "a"}]})",
       "prompt_completion", "user:u|assistant:a"},
      {R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})",
       "messages", "system:s|user:u|assistant:a"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]}, {"role": "assistant", "content": "a"}]})",
       "messages", "user:uv|assistant:a"},
      {R"({"conversations": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]})",
       "messages", "user:u|assistant:a"},
      {R"([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}])", "messages",
       "user:u|assistant:a"},
      {R"({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}], "system": "s"})",
       "sharegpt", "system:s|user:u|assistant:a"},
      {R"({"text": "t", "meta": 1})", "text", ":t"},
      // Roles.
      {R"({"messages": [{"role": "user", "content": "u"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "a"}]})",
       "messages", "user:u\n\nv|assistant:a"},
      {R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}]})",
       "messages", "user:u|assistant:a"},
      {R"({"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "u"}]})",
       "messages", "!leading_assistant"},
      {R"({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]})",
       "messages", "!leading_assistant"},
      {R"({"messages": [{"role": "user", "content": "u"}]})", "messages", "!no_assistant"},
      {R"({"messages": [{"role": "user", "content": "u"}, {"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]})",
       "messages", "!late_system"},
      {R"({"messages": [{"role": "narrator", "content": "u"}]})", "messages", "!bad_role"},
      {R"({"messages": [{"role": "user"}]})", "messages", "!bad_message"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "messages",
       "!unsupported_content"},
      // Tool calls pass through.
      {R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]}, {"role": "tool", "content": "42", "tool_call_id": "1"}, {"role": "assistant", "content": "a"}]})",
       "messages",
       "user:u|assistant:{\"tool_calls\":[{\"id\":\"1\"}]}|tool:42{\"tool_call_id\":\"1\"}|"
       "assistant:a"},
      {R"({"foo": 1})", "unknown", "!unknown_shape"},
      {R"({"instruction": "i"})", "unknown", "!unknown_shape"},
      {"3", "unknown", "!not_an_object"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.json);
    EXPECT_EQ(ShapeName(DetectShape(Json(c.json))), c.shape);
    std::string expected;
    for (const char* p = c.turns; *p != '\0'; ++p) {  // raw strings above write a line end as \n
      if (p[0] == '\\' && p[1] == 'n') {
        expected += '\n';
        ++p;
      } else {
        expected += *p;
      }
    }
    EXPECT_EQ(Mapped(c.json), expected);
  }
}

TEST(ShapesTest, CustomColumnsComeFirst) {
  const Columns columns = {{"instruction", "frage"}, {"response", "antwort"}, {"system", "rolle"}};
  EXPECT_EQ(
      Mapped(R"({"frage": "f", "antwort": "a", "rolle": "r", "instruction": "x", "response": "y"})",
             columns),
      "system:r|user:f|assistant:a");
  EXPECT_EQ(Mapped(R"({"antwort": "a"})", columns), "!missing_instruction");
  EXPECT_EQ(
      Mapped(R"({"verlauf": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})",
             {{"conversations", "verlauf"}}),
      "user:u|assistant:a");
  EXPECT_TRUE(CheckColumns(columns).ok());
  EXPECT_THAT(
      std::string(CheckColumns({{"instructions", "x"}}).message()),
      HasSubstr("\"instructions\" is not a canonical column; allowed: instruction, response"));
}

TEST(ShapesTest, OptionalFields) {
  Notes notes;
  const auto good = MapRecord(
      Json(
          R"({"text": "t", "id": 7, "conversation_id": "c", "quality_score": "0.5", "source": "s"})"),
      Shape::kText, {}, notes);
  EXPECT_EQ(good->sample_id, "7");
  EXPECT_EQ(good->conversation_id, "c");
  EXPECT_EQ(good->source, "s");
  EXPECT_EQ(good->quality_score, 0.5);
  EXPECT_TRUE(notes.empty());
  const auto bad =
      MapRecord(Json(R"({"text": "t", "quality_score": 3, "conversation_id": [1], "tools": 5})"),
                Shape::kText, {}, notes);
  EXPECT_TRUE(bad.ok()) << "a bad optional field does not cost the record";
  EXPECT_FALSE(bad->quality_score);
  EXPECT_EQ(notes["bad_quality_score"], 1);
  EXPECT_EQ(notes["bad_conversation_id"], 1);
  EXPECT_EQ(notes["bad_tools"], 1);
}

TEST(ShapesTest, Names) {
  EXPECT_EQ(*ParseShape("auto"), Shape::kUnknown);
  EXPECT_EQ(*ParseShape("sharegpt"), Shape::kSharegpt);
  EXPECT_THAT(std::string(ParseShape("foo").status().message()),
              HasSubstr("allowed: auto, instruction, alpaca"));
}

TEST(ShapesTest, RepairsAreNoted) {
  Notes notes;
  Mapped(
      R"({"messages": [{"role": "user", "content": "u"}, {"role": "user", "content": "v"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "w"}]})",
      {}, &notes);
  EXPECT_EQ(notes["merged_user_turns"], 1);
  EXPECT_EQ(notes["trailing_turns"], 1);
}

}  // namespace
}  // namespace finetuned
