// The corpus of tests/assets/data: small files of different shape, as they are found, prepared with
// no configuration but the path (and columns where named). The table is the expectation.
#include <map>
#include <set>

#include "gmock/gmock.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string file;
  int64_t samples = 0;  // both sides
  std::string shape;
  std::map<std::string, int64_t> dropped;
  std::string trained;  // trained text of some sample
  std::string error;    // part of the message when preparation fails
  std::map<std::string, std::string> columns;
};

const std::vector<Case>& Cases() {
  static const auto* const kCases = new std::vector<Case>{
      {.file = "alpaca.json", .samples = 3, .shape = "alpaca", .trained = "1, 2, 3<|im_end|>"},
      {.file = "alpaca_without_input.jsonl",
       .samples = 4,
       .shape = "instruction",
       .trained = "Paris.<|im_end|>"},
      {.file = "dolly.jsonl",
       .samples = 2,
       .shape = "instruction",
       .trained = "In 1932.<|im_end|>"},
      {.file = "openai_messages.jsonl",
       .samples = 4,
       .shape = "messages",
       .trained = "Eleven.<|im_end|>"},
      {.file = "multi_turn.jsonl",
       .samples = 2,
       .shape = "messages",
       .trained = "4<|im_end|>12<|im_end|>"},
      {.file = "sharegpt.json", .samples = 4, .shape = "sharegpt", .trained = "Eight.<|im_end|>"},
      {.file = "sharegpt_system.jsonl",
       .samples = 2,
       .shape = "sharegpt",
       .trained = "Ahoy!<|im_end|>"},
      {.file = "prompt_completion.jsonl",
       .samples = 4,
       .shape = "prompt_completion",
       .trained = " Paris.<|im_end|>"},
      {.file = "prompt_completion_messages.jsonl",
       .samples = 2,
       .shape = "prompt_completion",
       .trained = "Paris.<|im_end|>"},
      {.file = "text.jsonl", .samples = 3, .shape = "text", .trained = "in drittes Dokument."},
      {.file = "question_answer_numbers.jsonl",
       .samples = 3,
       .shape = "instruction",
       .trained = "0.125<|im_end|>"},
      {.file = "wrapper.json",
       .samples = 3,
       .shape = "instruction",
       .trained = "Eleven.<|im_end|>"},
      {.file = "single_record.json",
       .samples = 1,
       .shape = "instruction",
       .trained = "Hi.<|im_end|>"},
      {.file = "pretty_objects.json",
       .samples = 3,
       .shape = "instruction",
       .trained = "Paris.<|im_end|>"},
      {.file = "bom_crlf.jsonl",
       .samples = 3,
       .shape = "instruction",
       .trained = "Guten Morgen.<|im_end|>"},
      {.file = "compressed.jsonl.gz",
       .samples = 4,
       .shape = "prompt_completion",
       .trained = "Paris.<|im_end|>"},
      {.file = "json_lines_named.json",
       .samples = 4,
       .shape = "instruction",
       .trained = "Paris.<|im_end|>"},
      {.file = "json_list_named.jsonl",
       .samples = 4,
       .shape = "instruction",
       .trained = "Paris.<|im_end|>"},
      {.file = "no_extension", .samples = 2, .shape = "instruction", .trained = "Paris.<|im_end|>"},
      {.file = "tools.jsonl",
       .samples = 2,
       .shape = "messages",
       .trained = "<|im_end|>5<|im_end|>"},
      {.file = "content_parts.jsonl",
       .samples = 2,
       .shape = "messages",
       .dropped = {{"unsupported_content", 1}},
       .trained = "Both read.<|im_end|>"},
      {.file = "history.json",
       .samples = 2,
       .shape = "alpaca",
       .trained = "It is ten.<|im_end|>Eleven.<|im_end|>Now it is noon.<|im_end|>"},
      {.file = "mixed_shapes.jsonl",
       .samples = 3,
       .shape = "instruction, messages",
       .dropped = {{"missing_instruction", 1}},
       .trained = "f.<|im_end|>"},
      {.file = "some_broken_lines.jsonl",
       .samples = 3,
       .shape = "instruction",
       .dropped = {{"invalid_json", 2}},
       .trained = "Paris.<|im_end|>"},
      {.file = "duplicates.jsonl",
       .samples = 4,
       .shape = "instruction",
       .dropped = {{"duplicate", 2}},
       .trained = "Paris.<|im_end|>"},
      {.file = "nan_and_null.jsonl",
       .samples = 2,
       .shape = "instruction",
       .dropped = {{"missing_response", 1}},
       .trained = "Not a number.<|im_end|>"},
      {.file = "mojibake.jsonl",
       .samples = 2,
       .shape = "instruction",
       .dropped = {{"encoding_damage", 2}},
       .trained = "l’hiver<|im_end|>"},
      {.file = "own_columns.jsonl",
       .samples = 2,
       .shape = "instruction",
       .trained = "Ein Test.<|im_end|>",
       .columns = {{"instruction", "frage"}, {"response", "antwort"}}},
      {.file = "list_of_conversations.json",
       .samples = 2,
       .shape = "messages",
       .trained = "Paris.<|im_end|>"},
      {.file = "roles.jsonl",
       .samples = 3,
       .shape = "messages",
       .dropped = {{"leading_assistant", 1}, {"no_assistant", 1}},
       .trained = "y<|im_end|>"},
      {.file = "empty_parts.jsonl",
       .samples = 2,
       .shape = "instruction",
       .dropped = {{"empty_instruction", 1}, {"empty_response", 1}},
       .trained = "b<|im_end|>"},
      {.file = "template_markers.jsonl",
       .samples = 2,
       .shape = "instruction",
       .trained = "It starts a turn.<|im_end|>"},
      {.file = "conversation_ids.jsonl",
       .samples = 20,
       .shape = "instruction",
       .trained = "answer 7<|im_end|>"},
      {.file = "own_columns.jsonl",
       .error = "fit no known shape; their keys are: antwort, frage, thema. Name the columns"},
      {.file = "empty.jsonl", .error = "is empty (0 bytes"},
      {.file = "every_line_broken.jsonl",
       .error = "none of 3 records can be used: 3 invalid_json (every_line_broken.jsonl:1: "},
      {.file = "table.csv", .error = "is CSV, which is not built yet; convert it to JSONL"},
      {.file = "utf16.jsonl", .error = "iconv -f UTF-16 -t UTF-8"},
      {.file = "preferences.jsonl", .error = "their keys are: chosen, rejected"},
      {.file = "two_lists.json", .error = "several lists of objects (train, test)"},
  };
  return *kCases;
}

std::string AssetDir() {
  return std::string(std::getenv("FINETUNED_SOURCE_DIR")) + "/tests/assets/data/";
}

TEST(CorpusTest, EveryFileAsExpected) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.file);
    TempDir dir;
    TestJob job(dir, {AssetDir() + c.file});
    for (const auto& [canonical, own] : c.columns)
      (*job.request.spec.mutable_dataset()->mutable_columns())[canonical] = own;
    const auto prepared = job.Prepare();
    if (!c.error.empty()) {
      ASSERT_FALSE(prepared.ok());
      EXPECT_THAT(std::string(prepared.status().message()), HasSubstr(c.error));
      continue;
    }
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    const v1::DatasetStatistics& statistics = prepared->statistics;
    EXPECT_EQ(statistics.train_samples() + statistics.validation_samples(), c.samples);
    EXPECT_EQ(statistics.shape(), c.shape);
    const std::map<std::string, int64_t> dropped(statistics.dropped().begin(),
                                                 statistics.dropped().end());
    EXPECT_EQ(dropped, c.dropped);
    std::set<std::string> trained;
    for (const auto& store : {prepared->train, prepared->validation}) {
      for (size_t i = 0; i < store->size(); ++i)
        trained.insert(TextOf(*job.tokenizer, store->Sample(i), true));
    }
    EXPECT_THAT(trained, ::testing::Contains(c.trained));
  }
}

TEST(CorpusTest, EveryFileIsInTheTable) {
  std::set<std::string> named;
  for (const Case& c : Cases()) named.insert(c.file);
  for (const auto& item : std::filesystem::directory_iterator(AssetDir())) {
    EXPECT_EQ(named.count(item.path().filename().string()), 1u) << item.path();
  }
}

}  // namespace
}  // namespace finetuned
