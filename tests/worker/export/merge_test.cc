// Merging against computing with the unmerged adapter, on a tiny random Llama in two shards.
#include "worker/export/merge.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>

#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"
#include "tests/worker/models/tiny_llama.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

constexpr uint64_t kSeed = 20;

void WriteTensors(const std::string& path,
                  const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [name, tensor] : tensors) {
    declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, declared, {{"format", "pt"}});
  for (const auto& [name, tensor] : tensors) writer.Write(name, tensor);
  writer.Finish();
}

class MergeTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    std::cout << "seed " << kSeed << "\n";
    at::manual_seed(kSeed);
    request_ = {.base_dir = root_ + "/base",
                .adapter_dir = root_ + "/adapter",
                .output_dir = root_ + "/merged",
                .dtype = GetParam(),
                .provenance = {{"base_model", "tiny"}}};
    ASSERT_TRUE(MakeDirectories(request_.adapter_dir).ok());
    WriteBase();
    WriteAdapter({{"lora_alpha", 16}, {"use_rslora", true}});
  }

  void WriteBase() {
    nlohmann::json config = TinyLlamaConfig();
    config.update({{"tie_word_embeddings", true}, {"torch_dtype", "float64"}});
    WriteLlama(request_.base_dir, config, {.dtype = request_.dtype, .shards = 2});
    ASSERT_TRUE(WriteFileAtomic(request_.base_dir + "/tokenizer.json", "{}").ok());
  }

  void WriteAdapter(nlohmann::json config) {
    config.update({{"peft_type", "LORA"}, {"r", 4}, {"alpha_pattern", {{"v_proj", 3}}}});
    ASSERT_TRUE(WriteFileAtomic(request_.adapter_dir + "/adapter_config.json", config.dump()).ok());
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& [module, out] : std::map<std::string, int64_t>{
             {"0.self_attn.q_proj", 32}, {"1.self_attn.v_proj", 16}, {"1.mlp.up_proj", 48}}) {
      const std::string name = "base_model.model.model.layers." + module;
      tensors.emplace_back(name + ".lora_A.weight", at::randn({4, 32}).mul(0.2));
      tensors.emplace_back(name + ".lora_B.weight", at::randn({out, 4}).mul(0.2));
    }
    WriteTensors(request_.adapter_dir + "/adapter_model.safetensors", tensors);
  }

  MergeCheck Check() { return CheckMerged(request_, {{1, 5, 9, 60, 2}, {7, 7, 3}}, at::Device(at::kCPU)); }

  const TempDir temp_;
  const std::string root_ = temp_.path();
  MergeRequest request_;
};

TEST_P(MergeTest, EqualsTheUnmergedAdapterAndKeepsTheLayout) {
  const MergeReport report = Merge(request_, {});
  EXPECT_EQ(report.tensors, 20);
  EXPECT_EQ(report.merged_modules, 3);
  const MergeCheck check = Check();
  EXPECT_TRUE(check.passed) << check.merge_error << " " << check.detail;
  std::cout << "merge error " << check.merge_error << ", rounding shift " << check.rounding_shift << "\n";
  EXPECT_EQ(check.rounding_shift > 0, GetParam() != at::kFloat);
  const auto base = SafetensorsModel::Open(request_.base_dir);
  const auto merged = SafetensorsModel::Open(request_.output_dir);
  EXPECT_EQ(merged->shards(), base->shards());
  EXPECT_FALSE(merged->Has("lm_head.weight"));
  // alpha_pattern and rsLoRA by hand: 3 / √4.
  const auto adapter = SafetensorsFile::Open(request_.adapter_dir + "/adapter_model.safetensors");
  const std::string v = "model.layers.1.self_attn.v_proj";
  const at::Tensor want =
      base->Tensor(v + ".weight").to(at::kFloat) +
      1.5 * at::matmul(adapter->Tensor("base_model.model." + v + ".lora_B.weight"),
                       adapter->Tensor("base_model.model." + v + ".lora_A.weight"));
  EXPECT_TRUE(at::allclose(merged->Tensor(v + ".weight").to(at::kFloat), want,
                           GetParam() == at::kFloat ? 1e-5 : 1e-2, 1e-6));
  EXPECT_TRUE(std::filesystem::exists(request_.output_dir + "/tokenizer.json"));
  EXPECT_NE(ReadFile(request_.output_dir + "/README.md")->find("\"tiny\""), std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(*ReadFile(request_.output_dir + "/config.json"))["torch_dtype"],
            GetParam() == at::kFloat ? "float32" : "bfloat16");
}

TEST_P(MergeTest, NamesATamperedWeight) {
  Merge(request_, {});
  const std::string file = request_.output_dir + "/model-2.safetensors";
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  {
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    const auto merged = SafetensorsFile::Open(file);
    for (const auto& [key, entry] : merged->entries()) {
      tensors.emplace_back(key, merged->Tensor(key).clone());
      if (key == name) tensors.back().second.mul_(1.5);
    }
    WriteTensors(file, tensors);
  }
  const MergeCheck check = Check();
  EXPECT_FALSE(check.passed);
  EXPECT_NE(check.detail.find(name), std::string::npos) << check.detail;
}

TEST_P(MergeTest, CancelledLeavesNothing) {
  EXPECT_THROW(Merge(request_, {.cancelled = [] { return true; }}), ExportCancelled);
  for (const auto& entry : std::filesystem::directory_iterator(root_)) {
    EXPECT_EQ(entry.path().string().find("merged"), std::string::npos) << entry.path();
  }
}

TEST_P(MergeTest, RefusesWhatItWouldIgnore) {
  WriteAdapter({{"lora_alpha", 16}, {"use_dora", true}});
  EXPECT_THROW(Merge(request_, {}), std::runtime_error);
  request_.output_dir = request_.base_dir;
  WriteAdapter({{"lora_alpha", 16}});
  EXPECT_THROW(Merge(request_, {}), std::runtime_error);
}

TEST_P(MergeTest, MergesIntoTheDequantizedBase) {
  request_.dequantized_base = true;
  Merge(request_, {});
  const MergeCheck check = Check();
  EXPECT_TRUE(check.passed) << check.merge_error << " " << check.detail;
}

INSTANTIATE_TEST_SUITE_P(Dtypes, MergeTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

}  // namespace
}  // namespace finetuned
