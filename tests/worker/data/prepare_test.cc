// PrepareData and PreviewData as a whole.
#include <map>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "proto/errors/rpc_errors.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Rows(int from, int to) {
  std::string out;
  for (int i = from; i < to; ++i) {
    absl::StrAppend(&out, R"({"sample_id": "s)", i, R"(", "instruction": "question )", i,
                    R"(", "response": "answer )", i, "\"}\n");
  }
  return out;
}

std::vector<std::string> Ids(const TokenStore& store) {
  std::vector<std::string> out;
  for (size_t i = 0; i < store.size(); ++i) out.emplace_back(store.Sample(i).sample_id);
  return out;
}

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(PrepareTest, SamplesMaskAndStatistics) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 50))});
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train->size(), 45u);
  EXPECT_EQ(data->validation->size(), 5u);
  const SampleView first = data->train->Sample(0);
  EXPECT_EQ(TextOf(*job.tokenizer, first, false),
            absl::StrCat("<|im_start|>user\nquestion ", std::string(first.sample_id.substr(1)),
                         "<|im_end|>\n<|im_start|>assistant\nanswer ",
                         std::string(first.sample_id.substr(1)), "<|im_end|>\n"));
  EXPECT_EQ(TextOf(*job.tokenizer, first, true),
            absl::StrCat("answer ", std::string(first.sample_id.substr(1)), "<|im_end|>"));

  const v1::DatasetStatistics& s = data->statistics;
  EXPECT_EQ(s.records(), 50);
  EXPECT_EQ(s.train_samples(), 45);
  EXPECT_EQ(s.train_tokens(), data->train->total_tokens());
  EXPECT_EQ(s.trained_tokens(), data->train->trained_tokens());
  EXPECT_EQ(s.validation_tokens(), data->validation->total_tokens());
  EXPECT_EQ(s.overlap(), 0);
  EXPECT_EQ(s.chat_template(), "chatml");
  EXPECT_GT(s.packed_rows(), 0);
  EXPECT_EQ(
      s.total_tokens().max(),
      static_cast<int64_t>(std::string("Suser\nquestion 10E\nSassistant\nanswer 10E\n").size()));
  EXPECT_EQ(s.response_tokens().max(), 10);
  EXPECT_NEAR(s.prompt_tokens().mean() + s.response_tokens().mean(), s.total_tokens().mean(), 1e-9);

  ASSERT_EQ(data->references.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(data->references[i].sample_id, data->validation->Sample(i).sample_id);
    const std::string number = data->references[i].sample_id.substr(1);
    ASSERT_EQ(data->references[i].prompt.size(), 1u);
    EXPECT_EQ(data->references[i].prompt[0].content, "question " + number);
    EXPECT_EQ(data->references[i].reference, "answer " + number);
  }
  EXPECT_EQ(data->quarantine_path, "");
  EXPECT_THAT(*ReadFile(job.request.output_dir + "/statistics.json"),
              HasSubstr("\"trainSamples\": \"45\""));
}

TEST(PrepareTest, DeterministicAndCached) {
  TempDir dir, other;
  const std::string rows = Rows(0, 40) + "{broken\n";
  TestJob a(dir, {dir.Write("a.jsonl", rows)});
  TestJob b(other, {other.Write("a.jsonl", rows)});
  const auto first = a.Prepare(), elsewhere = b.Prepare();
  ASSERT_TRUE(first.ok() && elsewhere.ok()) << first.status() << elsewhere.status();
  EXPECT_EQ(first->content_sha256, elsewhere->content_sha256);
  EXPECT_EQ(Ids(*first->train), Ids(*elsewhere->train));
  EXPECT_EQ(Ids(*first->validation), Ids(*elsewhere->validation));
  EXPECT_EQ(*ReadFile(first->quarantine_path), *ReadFile(elsewhere->quarantine_path));

  a.request.output_dir = dir.path() + "/second";
  a.request.progress = [](int64_t, int64_t, std::string_view) {
    ADD_FAILURE() << "nothing should be read again";
  };
  const auto again = a.Prepare();
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(a.Logged("found in the cache"));
  EXPECT_EQ(again->content_sha256, first->content_sha256);
  EXPECT_EQ(again->statistics.SerializeAsString(), first->statistics.SerializeAsString());
  EXPECT_EQ(again->references.size(), first->references.size());
  EXPECT_EQ(*ReadFile(again->quarantine_path), *ReadFile(first->quarantine_path));
}

// Every setting that changes the samples changes the key; packing and the learning rate do not.
TEST(PrepareTest, KeyCoversWhatMatters) {
  TempDir dir;
  const std::string path = dir.Write("a.jsonl", Rows(0, 20));
  std::vector<std::function<void(PrepareRequest&)>> changes = {
      [](PrepareRequest& r) {},
      [](PrepareRequest& r) { r.spec.set_max_seq_length(100); },
      [](PrepareRequest& r) { r.spec.set_seed(7); },
      [](PrepareRequest& r) { r.spec.set_train_samples(5); },
      [](PrepareRequest& r) { r.spec.mutable_dataset()->set_system_prompt("x"); },
      [](PrepareRequest& r) { r.spec.mutable_dataset()->set_train_on_inputs(true); },
      [](PrepareRequest& r) { r.spec.mutable_dataset()->set_limit(10); },
      [](PrepareRequest& r) {
        r.spec.mutable_dataset()->mutable_filters()->set_min_response_chars(2);
      },
      [](PrepareRequest& r) {
        r.spec.mutable_dataset()->mutable_length()->set_policy("proportional");
      },
      [](PrepareRequest& r) {
        r.spec.mutable_dataset()->mutable_split()->set_validation_fraction(0.2);
      },
      [](PrepareRequest& r) { r.tokenizer_sha256 = "other"; },
      [](PrepareRequest& r) { r.add_bos = true; },
      [](PrepareRequest& r) { r.reference_samples = 1; },
  };
  const auto entries = [&] {
    std::set<std::string> names;
    for (const auto& item : std::filesystem::directory_iterator(dir.path() + "/cache"))
      names.insert(item.path().filename().string());
    names.erase("lock");
    return names.size();
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    TestJob job(dir, {path});
    changes[i](job.request);
    const auto data = job.Prepare();
    ASSERT_TRUE(data.ok()) << i << ": " << data.status();
    EXPECT_EQ(entries(), i + 1) << "change " << i;
  }
  TestJob job(dir, {path});
  job.request.spec.set_packing(false);
  job.request.spec.set_learning_rate(1e-3);
  job.request.submit_time_unix = 99;
  ASSERT_TRUE(job.Prepare().ok());
  EXPECT_EQ(entries(), changes.size());
}

TEST(PrepareTest, DamagedCacheIsRebuiltWithAnEvent) {
  TempDir dir;
  const std::string path = dir.Write("a.jsonl", Rows(0, 30) + "{broken\n");
  TestJob job(dir, {path});
  const auto good = job.Prepare();
  ASSERT_TRUE(good.ok());
  std::string entry;
  for (const auto& item : std::filesystem::directory_iterator(job.request.cache_dir)) {
    if (item.is_directory()) entry = item.path().string();
  }
  for (const char* file : {"samples.tokens", "split.bin", "meta.json"}) {
    for (const bool remove : {false, true}) {
      SCOPED_TRACE(file);
      const std::string name = entry + "/" + file;
      std::string bytes = *ReadFile(name);
      std::filesystem::remove(name);
      if (!remove) {
        bytes[bytes.size() / 2] ^= 1;
        std::ofstream(name, std::ios::binary) << bytes;
      }
      job.log.clear();
      const auto rebuilt = job.Prepare();
      ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
      EXPECT_TRUE(job.Logged("WARNING A damaged cache entry is built again"));
      EXPECT_EQ(rebuilt->content_sha256, good->content_sha256);
      EXPECT_EQ(Ids(*rebuilt->train), Ids(*good->train))
          << "and what was mapped before stays readable";
    }
  }
}

TEST(PrepareTest, ConcurrentBuilders) {
  TempDir dir;
  const std::string path = dir.Write("a.jsonl", Rows(0, 300));
  std::vector<std::string> hashes(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < hashes.size(); ++i) {
    threads.emplace_back([&, i] {
      TestJob job(dir, {path});
      job.request.output_dir = absl::StrCat(dir.path(), "/out", i);
      const auto data = job.Prepare();
      hashes[i] = data.ok() ? data->content_sha256 : Message(data.status());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& hash : hashes) EXPECT_EQ(hash, hashes[0]);
  EXPECT_EQ(hashes[0].size(), 64u);
}

TEST(PrepareTest, QuarantineHoldsReasonFileLineAndRecord) {
  TempDir dir;
  TestJob job(
      dir, {dir.Write("a.jsonl", Rows(0, 4) +
                                     "{\"instruction\": \"x\", \"response\": \"\"}\n{oops\xFF\n" +
                                     Rows(0, 1))});
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  const std::string text = *ReadFile(data->quarantine_path);
  EXPECT_THAT(text, HasSubstr(R"("reason":"empty_response")"));
  EXPECT_THAT(
      text, HasSubstr(R"("file":"a.jsonl","line":5,"record":{"instruction":"x","response":""}})"));
  EXPECT_THAT(text, HasSubstr("\"line\":6,\"record\":\"{oops\uFFFD\"}"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << "duplicates are only counted";
  EXPECT_EQ(data->statistics.dropped().at("duplicate"), 1);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
}

TEST(PrepareTest, TooManyLosses) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 4) + "{\n{\n{\n{\n{\n")});
  auto data = job.Prepare();
  EXPECT_EQ(data.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(data.status()), "INVALID_DATA");
  EXPECT_THAT(
      Message(data.status()),
      HasSubstr("5 of 9 records (55.6 %) are lost, more than dataset.max_bad_fraction (0.5)"));
  EXPECT_THAT(Message(data.status()), HasSubstr("5 invalid_json (a.jsonl:5: "));
  EXPECT_TRUE(std::filesystem::exists(dir.path() + "/out/quarantine.jsonl"));
  job.request.spec.mutable_dataset()->set_max_bad_fraction(0.6);
  EXPECT_TRUE(job.Prepare().ok());
}

TEST(PrepareTest, ConfigurationErrorsNameTheKey) {
  TempDir dir;
  const std::string path = dir.Write("a.jsonl", Rows(0, 4));
  const auto error = [&](const std::function<void(TestJob&)>& change) {
    TestJob job(dir, {path});
    change(job);
    const absl::Status status = job.Prepare().status();
    EXPECT_FALSE(status.ok());
    if (absl::IsInvalidArgument(status)) {
      EXPECT_EQ(ReasonOf(status), "INVALID_SPEC");
    }
    return Message(status);
  };
  EXPECT_THAT(error([](TestJob& j) { j.request.spec.mutable_dataset()->set_shape("foo"); }),
              HasSubstr("dataset.shape"));
  EXPECT_THAT(error([](TestJob& j) {
                (*j.request.spec.mutable_dataset()->mutable_columns())["foo"] = "x";
              }),
              HasSubstr("dataset.columns"));
  EXPECT_THAT(error([](TestJob& j) {
                j.request.spec.mutable_dataset()->mutable_length()->set_policy("foo");
              }),
              HasSubstr("dataset.length.policy"));
  EXPECT_THAT(error([](TestJob& j) {
                j.request.spec.mutable_dataset()->mutable_split()->set_method("temporal");
              }),
              HasSubstr("dataset.split.method: temporal is not built yet"));
  EXPECT_THAT(error([](TestJob& j) {
                j.request.spec.mutable_dataset()->mutable_split()->set_method("file");
              }),
              HasSubstr("dataset.split.validation_path"));
  EXPECT_THAT(error([](TestJob& j) { j.request.model_vocab_size = 200; }),
              HasSubstr("the model has only 200 token embeddings"));
  EXPECT_THAT(error([](TestJob& j) { j.request.paths = {"/nowhere/a.jsonl"}; }),
              HasSubstr("/nowhere/a.jsonl"));
  EXPECT_THAT(error([](TestJob& j) { j.request.paths.clear(); }), HasSubstr("dataset.path"));
  EXPECT_THAT(error([](TestJob& j) {
                j.request.add_bos = true;
                j.request.bos_token = "<none>";
              }),
              HasSubstr("bos token \"<none>\""));
}

TEST(PrepareTest, TemplateChecks) {
  TempDir dir;
  const std::string path =
      dir.Write("a.jsonl", R"({"system": "Be kind.", "instruction": "q", "response": "a"})"
                           "\n" +
                               Rows(0, 3));
  TestJob job(dir, {path});
  job.chat_template = Template(
      "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not "
      "supported') }}{% endif %}"
      "[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}{% if add_generation_prompt "
      "%}[assistant]{% endif %}");
  job.request.chat_template = job.chat_template.get();
  job.request.spec.mutable_dataset()->mutable_split()->set_validation_fraction(0);
  auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_TRUE(job.Logged("refuses a system role"));
  EXPECT_EQ(TextOf(*job.tokenizer, data->train->Sample(0), false),
            "[user]Be kind.\n\nq</s>[assistant]a</s>");

  job.chat_template = Template("{{ raise_exception('no') }}");
  job.request.chat_template = job.chat_template.get();
  EXPECT_THAT(Message(job.Prepare().status()),
              HasSubstr("dataset.chat_template: the template fails on a plain conversation"));

  job.chat_template = Template("{% for m in messages %}<|turn|>{{ m['content'] }}{% endfor %}");
  job.request.chat_template = job.chat_template.get();
  job.request.spec.mutable_dataset()->set_chat_template("mine.jinja");
  EXPECT_THAT(Message(job.Prepare().status()),
              HasSubstr("<|turn|>, which this tokenizer has no single token for"));
  job.request.spec.mutable_dataset()->set_chat_template("auto");
  EXPECT_TRUE(job.Prepare().ok());
  EXPECT_TRUE(job.Logged("WARNING The tokenizer's own chat template"));
}

// A record on which the template fails is lost, not the run.
TEST(PrepareTest, TemplateErrorOfARecordIsCounted) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 3) + R"({"instruction": "boom", "response": "a"})"
                                                      "\n")});
  job.chat_template = Template(
      "{% for m in messages %}{% if m['content'] == 'boom' %}{{ raise_exception('bad turn') }}{% "
      "endif %}"
      "<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}");
  job.request.chat_template = job.chat_template.get();
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->statistics.dropped().at("template_error"), 1);
  EXPECT_THAT(*ReadFile(data->quarantine_path), HasSubstr("bad turn"));
}

TEST(PrepareTest, PlainTextGetsSpecialTokensOnce) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", R"({"text": "one"})"
                                         "\n"
                                         R"({"text": "<s>two"})"
                                         "\n")});
  job.tokenizer = ByteTokenizer(/*post_processor_adds_bos=*/true);
  job.request.tokenizer = job.tokenizer.get();
  job.request.add_eos = true;
  job.request.spec.mutable_dataset()->mutable_split()->set_validation_fraction(0);
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(TextOf(*job.tokenizer, data->train->Sample(0), false), "<s>one</s>");
  EXPECT_EQ(TextOf(*job.tokenizer, data->train->Sample(0), true), "one</s>");
  EXPECT_EQ(TextOf(*job.tokenizer, data->train->Sample(1), false), "<s>two</s>");
  EXPECT_THAT(data->references, IsEmpty());
}

TEST(PrepareTest, WithoutTemplateOnlyPlainTexts) {
  TempDir dir;
  TestJob text(dir, {dir.Write("a.jsonl", R"({"text": "one"})"
                                          "\n"
                                          R"({"text": "two"})"
                                          "\n")});
  text.request.chat_template = nullptr;
  EXPECT_TRUE(text.Prepare().ok());
  EXPECT_TRUE(PreviewData(text.request, 1).ok());
  TestJob chat(dir, {dir.Write("b.jsonl", Rows(0, 3))});
  chat.request.chat_template = nullptr;
  const absl::Status status = chat.Prepare().status();
  EXPECT_EQ(ReasonOf(status), "INVALID_SPEC");
  EXPECT_THAT(Message(status),
              HasSubstr("the model has no chat template; set dataset.chat_template"));
}

TEST(PrepareTest, TrainOnInputsAndSystemPrompt) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 2))});
  job.request.spec.mutable_dataset()->set_train_on_inputs(true);
  job.request.spec.mutable_dataset()->set_system_prompt("Be brief.");
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok());
  const SampleView sample = data->train->Sample(0);
  EXPECT_THAT(TextOf(*job.tokenizer, sample, true),
              ::testing::StartsWith("system\nBe brief.<|im_end|>"));
  EXPECT_EQ(data->train->trained_tokens() + 1, data->train->total_tokens());
}

TEST(PrepareTest, EveryLabelMasked) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 5))});
  // Marks what the probe's assistant says, but nothing of these records'.
  job.chat_template = Template(
      "{% for m in messages %}{% if m['role'] == 'user' or m['content'] == 'Four.' %}{{ "
      "m['content'] }}{% endif %}{% endfor %}");
  job.request.chat_template = job.chat_template.get();
  EXPECT_THAT(Message(job.Prepare().status()), HasSubstr("every label is masked"));
}

TEST(PrepareTest, ValidationFileNeverLeaksIntoTraining) {
  TempDir dir;
  TestJob job(dir, {dir.Write("train.jsonl", Rows(0, 30))});
  job.request.validation_path = dir.Write("validation.jsonl", Rows(25, 35));
  job.request.spec.mutable_dataset()->mutable_split()->set_method("file");
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train->size(), 25u);
  EXPECT_EQ(data->validation->size(), 10u);
  EXPECT_EQ(data->statistics.dropped().at("in_validation"), 5);
  EXPECT_EQ(data->statistics.overlap(), 0);
  EXPECT_EQ(data->references[0].sample_id, "s25");
}

TEST(PrepareTest, ConversationsAndDuplicatesStayOnOneSide) {
  TempDir dir;
  std::string rows;
  for (int i = 0; i < 200; ++i) {
    absl::StrAppend(&rows, R"({"conversation_id": ")", i / 5, R"(", "sample_id": ")", i / 5,
                    R"(", "instruction": "q)", i % 190, R"(", "response": "a"})", "\n");
  }
  TestJob job(dir, {dir.Write("a.jsonl", rows)});
  job.request.spec.mutable_dataset()->mutable_filters()->set_exact_duplicates(false);
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train->size() + data->validation->size(), 200u);
  EXPECT_EQ(data->validation->size(), 20u);
  EXPECT_EQ(data->statistics.overlap(), 0);
  const std::vector<std::string> train = Ids(*data->train), validation = Ids(*data->validation);
  for (const std::string& id : validation) EXPECT_EQ(std::count(train.begin(), train.end(), id), 0);
}

TEST(PrepareTest, LimitsAndSources) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 30)), dir.Write("b.jsonl", Rows(30, 60))});
  job.request.spec.mutable_dataset()->set_limit(40);
  v1::DatasetSource* source = job.request.spec.mutable_dataset()->add_sources();
  source->set_limit(3);
  job.request.paths.push_back(dir.Write("c.jsonl", Rows(60, 90)));
  job.request.spec.set_train_samples(20);
  job.request.spec.mutable_dataset()->mutable_split()->set_validation_fraction(0);
  const auto data = job.Prepare();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->statistics.records(), 43);
  EXPECT_EQ(data->train->size(), 20u);
  const std::vector<std::string> ids = Ids(*data->train);
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 20u);
}

TEST(PrepareTest, Cancellation) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", Rows(0, 20'000))});
  int asked = 0;
  job.request.cancelled = [&] { return ++asked > 2; };
  const absl::Status status = job.Prepare().status();
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  for (const auto& item : std::filesystem::directory_iterator(job.request.cache_dir)) {
    EXPECT_EQ(item.path().filename(), "lock") << "no half-built entry is left";
  }
}

TEST(PrepareTest, ProgressInBytes) {
  TempDir dir;
  const std::string rows = Rows(0, 2000);
  TestJob job(dir, {dir.Write("a.jsonl", rows)});
  int64_t last = 0;
  job.request.progress = [&](int64_t done, int64_t total, std::string_view unit) {
    EXPECT_EQ(unit, "bytes");
    EXPECT_EQ(total, static_cast<int64_t>(rows.size()));
    EXPECT_GE(done, last);
    last = done;
  };
  ASSERT_TRUE(job.Prepare().ok());
  EXPECT_EQ(last, static_cast<int64_t>(rows.size()));
}

TEST(PrepareTest, DamagedGzipIsInvalidData) {
  TempDir dir;
  const std::string asset = *ReadFile(std::string(std::getenv("FINETUNED_SOURCE_DIR")) +
                                      "/tests/assets/data/compressed.jsonl.gz");
  TestJob job(dir, {dir.Write("a.jsonl.gz", asset.substr(0, asset.size() - 6))});
  const absl::Status status = job.Prepare().status();
  EXPECT_EQ(ReasonOf(status), "INVALID_DATA") << status;
  EXPECT_THAT(Message(status), HasSubstr("the gzip data is cut off"));
}

TEST(PrepareTest, Preview) {
  TempDir dir;
  TestJob job(dir, {dir.Write("a.jsonl", "{oops\n" + Rows(0, 10))});
  job.request.output_dir = "";
  const auto preview = PreviewData(job.request, 3);
  ASSERT_TRUE(preview.ok()) << preview.status();
  ASSERT_EQ(preview->samples_size(), 3);
  const v1::PreviewSample& sample = preview->samples(0);
  EXPECT_EQ(sample.sample_id(), "s0");
  ASSERT_EQ(sample.turns_size(), 2);
  EXPECT_EQ(sample.turns(1).content(), "answer 0");
  EXPECT_EQ(sample.text(),
            "<|im_start|>user\nquestion 0<|im_end|>\n<|im_start|>assistant\nanswer 0<|im_end|>\n");
  EXPECT_EQ(sample.input_ids_size(), sample.trained_size());
  EXPECT_EQ(std::count(sample.trained().begin(), sample.trained().end(), true), 9);
  EXPECT_EQ(preview->statistics().records(), 4);
  EXPECT_EQ(preview->statistics().dropped().at("invalid_json"), 1);
  EXPECT_FALSE(std::filesystem::exists(job.request.cache_dir));
}

// Random damage to a data file never crashes preparation, and what it counts adds up.
TEST(PrepareTest, MutatedData) {
  std::mt19937_64 random(TestSeed());
  const std::string good =
      Rows(0, 12) +
      R"({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a", "tool_calls": [{"x": 1}]}], "tools": [{"n": 1}]})"
      "\n"
      R"({"text": "t", "quality_score": 0.5})"
      "\n";
  for (int round = 0; round < 60; ++round) {
    TempDir dir;
    std::string text = good;
    for (int edits = 1 + static_cast<int>(random() % 10); edits > 0; --edits) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = static_cast<char>(random());
      } else {
        text.erase(at, 1 + random() % 20);
      }
    }
    TestJob job(dir, {dir.Write("a.jsonl", text)});
    job.request.spec.mutable_dataset()->set_max_bad_fraction(1);
    const auto data = job.Prepare();
    if (!data.ok()) {
      ASSERT_TRUE(absl::IsInvalidArgument(data.status()) ||
                  absl::IsFailedPrecondition(data.status()))
          << data.status();
      continue;
    }
    int64_t dropped = 0;
    for (const auto& [reason, count] : data->statistics.dropped()) dropped += count;
    ASSERT_EQ(data->statistics.records(),
              dropped + data->statistics.train_samples() + data->statistics.validation_samples());
  }
}

}  // namespace
}  // namespace finetuned
