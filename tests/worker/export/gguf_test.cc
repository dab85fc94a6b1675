#include "worker/export/gguf.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"
#include "worker/export/gguf_file.h"
#include "worker/models/safetensors.h"
#include "worker/text/byte_level.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

// A random model of two layers: 4 heads of 16 over 2 key heads, MLP of 48 (no multiple of Q8_0's
// 32), 260 tokens in 270 rows.
class GgufTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(dir_ / "model");
    fs::create_directories(dir_ / "out");
    config_ = {{"architectures", {"LlamaForCausalLM"}},
               {"model_type", "llama"},
               {"hidden_size", 64},
               {"intermediate_size", 48},
               {"num_hidden_layers", 2},
               {"num_attention_heads", 4},
               {"num_key_value_heads", 2},
               {"vocab_size", 270},
               {"max_position_embeddings", 128},
               {"rms_norm_eps", 1e-5},
               {"tie_word_embeddings", true},
               {"rope_theta", 10000.0}};
    at::manual_seed(5);
    Random("model.embed_tokens.weight", {270, 64});
    for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
      Random(layer + "input_layernorm.weight", {64});
      Random(layer + "self_attn.q_proj.weight", {64, 64});
      Random(layer + "self_attn.k_proj.weight", {32, 64});
      Random(layer + "self_attn.v_proj.weight", {32, 64});
      Random(layer + "self_attn.o_proj.weight", {64, 64});
      Random(layer + "post_attention_layernorm.weight", {64});
      Random(layer + "mlp.gate_proj.weight", {48, 64});
      Random(layer + "mlp.up_proj.weight", {48, 64});
      Random(layer + "mlp.down_proj.weight", {64, 48});
    }
    Random("model.norm.weight", {64});
    json vocab;
    for (int byte = 0; byte < 256; ++byte) {
      std::string text;
      unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(byte)), text);
      vocab[text] = byte;
    }
    const json tokenizer = {
        {"added_tokens", json::array()},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
        {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array()}}}};
    std::ofstream(dir_ / "model/tokenizer.json") << tokenizer;
    Save();
    request_ = {dir_ / "model",
                dir_ / "out/model.gguf",
                GgufType::kF16,
                {{"name", "tiny"}, {"data_sha256", "abc"}}};
  }

  void Random(const std::string& name, std::vector<int64_t> shape) {
    tensors_[name] = at::randn(shape).to(at::kBFloat16);
  }
  void Save() {
    std::ofstream(dir_ / "model/config.json") << config_;
    std::vector<SafetensorsWriter::Declared> declared;
    for (const auto& [name, tensor] : tensors_)
      declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
    SafetensorsWriter writer(dir_ / "model/model.safetensors", declared, {});
    for (const auto& [name, tensor] : tensors_) writer.Write(name, tensor);
    writer.Finish();
  }
  absl::StatusOr<GgufReport> Write() { return WriteGguf(request_, nullptr, nullptr); }
  size_t FilesInOut() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(dir_ / "out"), fs::directory_iterator()));
  }

  const TempDir temp_;
  const fs::path dir_ = temp_.path();
  json config_;
  std::map<std::string, at::Tensor> tensors_;
  GgufRequest request_;
};

TEST_F(GgufTest, WritesAndChecksEveryType) {
  for (const GgufType type : {GgufType::kF32, GgufType::kF16, GgufType::kBf16, GgufType::kQ8_0}) {
    SCOPED_TRACE(GgufTypeName(type));
    request_.type = type;
    int64_t last = -1, total = 0;
    const auto report = WriteGguf(
        request_,
        [&](int64_t done, int64_t of, const std::string&) {
          EXPECT_EQ(done, last + 1);
          last = done;
          total = of;
        },
        nullptr);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->tensors, 20);
    EXPECT_EQ(last, total);
    EXPECT_EQ(report->bytes, static_cast<int64_t>(fs::file_size(request_.output_path)));
    EXPECT_EQ(FilesInOut(), 1u);
    // Rows of 48 do not divide into Q8_0's blocks.
    EXPECT_EQ(report->notes.size(), type == GgufType::kQ8_0 ? 2u : 0u);
    const auto check = CheckGguf(request_);
    ASSERT_TRUE(check.ok()) << check.status();
    EXPECT_EQ(check->tensors, 20);
    EXPECT_LE(check->max_relative_error, type == GgufType::kQ8_0  ? 5e-3
                                         : type == GgufType::kF16 ? 1e-6
                                                                  : 0);
  }
}

TEST_F(GgufTest, RotaryRowsBecomeNeighbours) {
  request_.type = GgufType::kF32;
  ASSERT_TRUE(Write().ok());
  const auto file = GgufFile::Open(request_.output_path);
  ASSERT_TRUE(file.ok()) << file.status();
  for (size_t i = 0; i < (*file)->tensors().size(); ++i) {
    const GgufTensorInfo& info = (*file)->tensors()[i];
    if (info.name != "blk.1.attn_k.weight") continue;
    std::vector<float> rows(32 * 64);
    ASSERT_TRUE((*file)
                    ->Read(i, 0, rows.size() * sizeof(float), reinterpret_cast<char*>(rows.data()))
                    .ok());
    const at::Tensor source = tensors_["model.layers.1.self_attn.k_proj.weight"].to(at::kFloat);
    // Head 1 (rows 16 to 31): the pair (3, 11) of it is rows 6 and 7 of the head.
    for (int64_t column = 0; column < 64; ++column) {
      EXPECT_EQ(rows[(16 + 6) * 64 + column], source[16 + 3][column].item<float>());
      EXPECT_EQ(rows[(16 + 7) * 64 + column], source[16 + 11][column].item<float>());
    }
    return;
  }
  FAIL() << "no blk.1.attn_k.weight";
}

TEST_F(GgufTest, CheckFindsEveryKindOfDifference) {
  request_.type = GgufType::kQ8_0;
  ASSERT_TRUE(Write().ok());
  const auto differs = [this](const char* what) {
    const auto check = CheckGguf(request_);
    EXPECT_TRUE(absl::IsDataLoss(check.status())) << check.status();
    EXPECT_THAT(check.status().ToString(), HasSubstr(what));
  };
  const std::string whole = *ReadFile(request_.output_path);
  std::string damaged = whole;
  damaged[whole.size() - 40 * 34] ^= 0x40;
  std::ofstream(request_.output_path, std::ios::binary) << damaged;
  differs("rounding does not explain that");
  std::ofstream(request_.output_path, std::ios::binary) << whole.substr(0, whole.size() - 100);
  differs("truncated");
  std::ofstream(request_.output_path, std::ios::binary) << whole;
  request_.provenance["data_sha256"] = "abd";
  differs("key 'finetuned.data_sha256' has another value");
  request_.provenance.erase("data_sha256");
  differs("is not in its place");
  request_.provenance["data_sha256"] = "abc";
  request_.type = GgufType::kBf16;
  differs("general.file_type");
  request_.type = GgufType::kQ8_0;
  tensors_["model.layers.0.self_attn.q_proj.weight"][9][3] += 0.5;
  Save();
  differs("'blk.0.attn_q.weight'");
  fs::remove(request_.output_path);
  EXPECT_TRUE(absl::IsNotFound(CheckGguf(request_).status()));
}

TEST_F(GgufTest, EveryByteCounts) {
  // No change passes, wherever it is, but within the padding between header and data: these shapes
  // have no other.
  request_.type = GgufType::kF32;
  ASSERT_TRUE(Write().ok());
  const std::string whole = *ReadFile(request_.output_path);
  const auto file = GgufFile::Open(request_.output_path);
  ASSERT_TRUE(file.ok());
  size_t data_begin = whole.size();
  for (const GgufTensorInfo& tensor : (*file)->tensors()) {
    ASSERT_EQ(tensor.bytes() % 32, 0);
    data_begin -= static_cast<size_t>(tensor.bytes());
  }
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 300; ++i) {
    const size_t at = random() % (i % 2 ? whole.size() : data_begin);
    std::string damaged = whole;
    damaged[at] ^= static_cast<char>(1 + random() % 255);
    std::ofstream(request_.output_path, std::ios::binary) << damaged;
    const bool padding = at < data_begin && at + 32 > data_begin;
    EXPECT_TRUE(padding || !CheckGguf(request_).ok()) << at;
  }
  std::ofstream(request_.output_path, std::ios::binary) << whole;
  EXPECT_TRUE(CheckGguf(request_).ok());
}

TEST_F(GgufTest, CancelledLeavesNothing) {
  int asked = 0;
  const auto report = WriteGguf(request_, nullptr, [&asked] { return ++asked > 7; });
  EXPECT_TRUE(absl::IsCancelled(report.status())) << report.status();
  EXPECT_EQ(FilesInOut(), 0u);
}

TEST_F(GgufTest, DiskErrorsLeaveNothing) {
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = 50000;
  setrlimit(RLIMIT_FSIZE, &small);
  const auto report = Write();
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  EXPECT_THAT(report.status().ToString(), HasSubstr("cannot write"));
  EXPECT_EQ(FilesInOut(), 0u);
  request_.output_path = dir_ / "no such directory/x.gguf";
  EXPECT_TRUE(absl::IsNotFound(Write().status()));
  request_.output_path = dir_ / "out";  // a directory stands in the way
  EXPECT_FALSE(Write().ok());
  EXPECT_EQ(FilesInOut(), 0u);
}

TEST_F(GgufTest, WeightsThatAreNoNumbersOrTooLargeAreRefused) {
  const auto error = [this] {
    Save();
    const std::string text = Write().status().ToString();
    EXPECT_EQ(FilesInOut(), 0u);
    return text;
  };
  at::Tensor& weight = tensors_["model.layers.1.mlp.up_proj.weight"];
  weight[3][5] = 1e6;
  EXPECT_THAT(error(),
              HasSubstr("'model.layers.1.mlp.up_proj.weight' holds 999424, which F16 cannot hold"));
  weight[3][5] = std::numeric_limits<float>::quiet_NaN();
  for (const GgufType type : {GgufType::kF32, GgufType::kBf16, GgufType::kQ8_0}) {
    request_.type = type;
    EXPECT_THAT(error(), HasSubstr("the model is damaged or its training diverged"));
  }
  weight[3][5] = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(error(), HasSubstr("holds -inf"));
}

TEST_F(GgufTest, BadModelsAreNamedErrors) {
  const auto error = [this] {
    std::ofstream(dir_ / "model/config.json") << config_;
    const std::string text = Write().status().ToString();
    EXPECT_EQ(FilesInOut(), 0u);
    return text;
  };
  json good = config_;
  config_["architectures"] = {"GPT2LMHeadModel"};
  EXPECT_THAT(error(), HasSubstr("GPT2LMHeadModel"));
  config_ = good;
  config_["num_hidden_layers"] = 3;
  EXPECT_THAT(error(), HasSubstr("model.layers.2."));
  config_ = good;
  config_["rope_scaling"] = {{"rope_type", "yarn"},
                             {"factor", 2.0},
                             {"original_max_position_embeddings", 64},
                             {"truncate", false}};
  EXPECT_THAT(error(), HasSubstr("truncate"));
  config_["rope_scaling"] = {{"rope_type", "longrope"}};
  EXPECT_THAT(error(), HasSubstr("longrope"));
  config_ = good;
  request_.provenance = json::array();
  EXPECT_THAT(error(), HasSubstr("provenance"));
  request_.provenance = nullptr;
  fs::remove(dir_ / "model/tokenizer.json");
  EXPECT_THAT(error(), HasSubstr("tokenizer.json"));
  request_.model_dir = dir_ / "nowhere";
  EXPECT_THAT(Write().status().ToString(), HasSubstr("nowhere"));
}

}  // namespace
}  // namespace finetuned
