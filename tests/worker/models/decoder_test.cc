// A tiny random Llama: loading, refusals, checkpointing, generation with a cache, adapters,
// determinism.
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "worker/adapters/lora.h"
#include "tests/fakes/temp_dir.h"
#include "tests/worker/models/random_inputs.h"
#include "tests/worker/models/tiny_llama.h"
#include "worker/models/architecture.h"
#include "worker/models/causal_lm.h"
#include "worker/models/model_summary.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class DecoderTest : public testing::Test {
 protected:
  DecoderTest() {
    config_ = TinyLlamaConfig();
    config_["eos_token_id"] = {2, 3};
    at::manual_seed(5);
    Save();
  }

  void Save(const std::string& skip = "") { WriteLlama(dir_, config_, {.skip = skip}); }
  void SaveConfig(const char* key, const nlohmann::json& value) {
    nlohmann::json changed = config_;
    changed[key] = value;
    std::ofstream(dir_ / "config.json") << changed;
  }
  std::string LoadError() const {
    try {
      LoadCausalLm(dir_.string(), {});
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  }
  static Batch MakeBatch(const std::vector<int64_t>& lengths) { return RandomBatch(lengths, 61, /*trained=*/1, /*seed=*/6); }
  // Loss and all gradients of one batch.
  static std::vector<at::Tensor> Gradients(CausalLm& model, LoraAdapters& adapters,
                                           const Batch& batch) {
    at::manual_seed(11);
    const at::Tensor loss = model.LossSum(batch);
    loss.backward();
    std::vector<at::Tensor> result = {loss.detach()};
    for (AdapterParameter& parameter : adapters.parameters()) {
      result.push_back(parameter.tensor.grad().clone());
      parameter.tensor.mutable_grad().reset();
    }
    return result;
  }
  static void ExpectSameBits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << "tensor " << i;
  }

  const TempDir temp_;
  const fs::path dir_ = temp_.path();
  nlohmann::json config_;
};

TEST_F(DecoderTest, SummaryCountsWhatIsThere) {
  const ModelSummary summary = InspectModelDir(dir_.string());
  EXPECT_EQ(summary.linears.size(), 14u);
  EXPECT_EQ(summary.linears[1].name, "model.layers.0.self_attn.k_proj");
  EXPECT_EQ(summary.linears[1].out_features, 16);
  EXPECT_EQ(summary.embedding_parameters, 2 * 61 * 32);
  EXPECT_EQ(summary.other_parameters, 5 * 32);
  EXPECT_EQ(summary.linear_parameters, 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32));
  EXPECT_EQ(summary.file_bytes, 4 * summary.parameters);
  EXPECT_EQ(summary.dtype, "float32");
  EXPECT_THAT(summary.config.eos_token_ids, testing::ElementsAre(2, 3));
}

TEST_F(DecoderTest, RefusalsNameTheFault) {
  SaveConfig("architectures", {"MambaForCausalLM"});
  EXPECT_THAT(LoadError(), testing::AllOf(HasSubstr("MambaForCausalLM"),
                                          HasSubstr("supported: LlamaForCausalLM")));
  SaveConfig("hidden_act", "gelu");
  EXPECT_THAT(LoadError(), HasSubstr("hidden_act 'gelu'"));
  SaveConfig("num_attention_heads", "four");
  EXPECT_THAT(LoadError(), HasSubstr("num_attention_heads is \"four\""));
  SaveConfig("rope_scaling", {{"type", "longrope"}, {"factor", 2}});
  EXPECT_THAT(LoadError(), HasSubstr("rope type 'longrope'"));
  SaveConfig("rope_scaling", {{"rope_type", "llama3"}});
  EXPECT_THAT(LoadError(), HasSubstr("rope_scaling.factor"));
  SaveConfig("quantization_config", {{"quant_method", "gptq"}});
  EXPECT_THAT(LoadError(), HasSubstr("already quantized (gptq)"));
  SaveConfig("intermediate_size", 50);
  EXPECT_THAT(LoadError(), testing::AllOf(HasSubstr("mlp.gate_proj.weight"), HasSubstr("[48, 32]"),
                                          HasSubstr("[50, 32]")));
  Save("model.layers.1.mlp.up_proj.weight");
  EXPECT_THAT(LoadError(), HasSubstr("'model.layers.1.mlp.up_proj.weight' is missing"));
  fs::remove(dir_ / "config.json");
  EXPECT_THAT(LoadError(), HasSubstr("config.json: is missing"));
}

TEST_F(DecoderTest, TrainingIsRepeatableAndCheckpointingChangesNoBit) {
  const auto model = LoadCausalLm(dir_.string(), {});
  for (const double dropout : {0.0, 0.3}) {
    const auto adapters = LoraAdapters::Inject(*model, LoraSpec(4, {}, dropout), 1);
    RandomB(*adapters, 0.1);
    const Batch batch = MakeBatch({3, 17, 9});
    const auto plain = Gradients(*model, *adapters, batch),
               again = Gradients(*model, *adapters, batch);
    model->SetGradientCheckpointing(true);
    const auto recomputed = Gradients(*model, *adapters, batch);
    model->SetGradientCheckpointing(false);
    ExpectSameBits(plain, again);
    ExpectSameBits(plain, recomputed);
    EXPECT_GT(plain[1].abs().max().item<float>(), 0);
  }
}

TEST_F(DecoderTest, DropoutTouchesTrainingAlone) {
  const auto model = LoadCausalLm(dir_.string(), {});
  const auto adapters = LoraAdapters::Inject(*model, LoraSpec(4, {}, 0.5), 1);
  RandomB(*adapters, 0.1);
  const Batch batch = MakeBatch({20});
  const at::Tensor a = model->TokenLosses(batch), b = model->TokenLosses(batch);
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_GT((model->LossSum(batch) - a.sum()).abs().item<float>(), 1e-4);
}

TEST_F(DecoderTest, LossOfOneTokenDocumentsAndOfNoTargets) {
  const auto model = LoadCausalLm(dir_.string(), {});
  const auto adapters = LoraAdapters::Inject(*model, LoraSpec(2), 1);
  Batch batch = MakeBatch({1, 1});
  EXPECT_EQ(batch.targets.ne(kIgnoreIndex).sum().item<int64_t>(), 0);
  const auto gradients = Gradients(*model, *adapters, batch);
  for (const at::Tensor& tensor : gradients) EXPECT_EQ(tensor.abs().max().item<float>(), 0);
}

TEST_F(DecoderTest, CachedGenerationEqualsTheFullPass) {
  const auto model = LoadCausalLm(dir_.string(), {});
  const int64_t lengths[] = {6, 3};
  at::Tensor ids = at::randint(61, {2, 6}, at::kLong), pad = at::zeros({2, 6}, at::kBool);
  pad[1].narrow(0, 0, 3).fill_(true);
  const auto cache = model->NewCache(2, 9);
  std::vector<at::Tensor> rows = {ids[0], ids[1].narrow(0, 3, 3)};
  at::Tensor input = ids, mask = pad;
  for (int step = 0; step < 4; ++step) {
    const at::Tensor logits = model->Step(input, mask, *cache);
    EXPECT_EQ(cache->length(), 6 + step);
    for (int64_t i = 0; i < 2; ++i) {
      Batch batch;
      batch.input_ids = rows[static_cast<size_t>(i)];
      const int64_t length = lengths[i] + step;
      batch.position_ids = at::arange(length, at::kLong);
      batch.cu_seqlens = {0, length};
      batch.max_seqlen = length;
      at::NoGradGuard no_grad;
      const at::Tensor full = model->Logits(model->Hidden(batch))[length - 1];
      EXPECT_LT((full - logits[i]).abs().max().item<float>(),
                1e-4 * full.abs().max().item<float>());
    }
    if (step == 3) break;
    input = logits.argmax(-1, /*keepdim=*/true);
    mask = at::zeros({2, 1}, at::kBool);
    for (size_t i = 0; i < 2; ++i) rows[i] = at::cat({rows[i], input[static_cast<int64_t>(i)]});
  }
  EXPECT_THROW(model->Step(input, mask, *cache), c10::Error) << "the cache is full";
}

TEST_F(DecoderTest, FreshAdaptersChangeNothingAndCanBeSwitchedOff) {
  const auto model = LoadCausalLm(dir_.string(), {});
  const Batch batch = MakeBatch({12});
  const uint64_t checksum = model->FrozenChecksum();
  const at::Tensor base = model->TokenLosses(batch);
  const auto adapters = LoraAdapters::Inject(*model, LoraSpec(4), 1);
  EXPECT_TRUE(at::equal(base, model->TokenLosses(batch)));
  RandomB(*adapters, 0.1);
  EXPECT_FALSE(at::equal(base, model->TokenLosses(batch)));
  model->SetAdaptersEnabled(false);
  EXPECT_TRUE(at::equal(base, model->TokenLosses(batch)));
  EXPECT_EQ(checksum, model->FrozenChecksum());
  model->linears()[0]->parts()[1].weight.view({-1})[3] += 1e-3;
  EXPECT_NE(checksum, model->FrozenChecksum());
}

TEST_F(DecoderTest, QuantizedBaseTrains) {
  LoadOptions options;
  options.load_in_4bit = true;
  const auto model = LoadCausalLm(dir_.string(), options);
  const auto adapters = LoraAdapters::Inject(*model, LoraSpec(4), 1);
  const auto gradients = Gradients(*model, *adapters, MakeBatch({12, 4}));
  EXPECT_TRUE(std::isfinite(gradients[0].item<float>()));
  EXPECT_GT(gradients[2].abs().max().item<float>(), 0);
  const auto bytes = model->BytesByCategory();
  EXPECT_EQ(bytes[1].first, "quantized");
  EXPECT_EQ(bytes[1].second, InspectModelDir(dir_.string()).linear_parameters / 2);
}

TEST_F(DecoderTest, AdapterRoundTrip) {
  const auto model = LoadCausalLm(dir_.string(), {});
  v1::Lora spec = LoraSpec(4);
  (*spec.mutable_rank_pattern())["k_proj"] = 64;  // over the smaller dimension
  (*spec.mutable_alpha_pattern())["layers.1.mlp.up_proj"] = 3;
  std::vector<std::string> warnings;
  auto adapters = LoraAdapters::Inject(*model, spec, 1,
                                       [&](const std::string& text) { warnings.push_back(text); });
  EXPECT_EQ(warnings.size(), 2u);
  RandomB(*adapters, 0.1);
  const Batch batch = MakeBatch({12});
  const at::Tensor before = model->TokenLosses(batch);
  adapters->SavePeft((dir_ / "adapter").string(), "base");
  const auto loaded = LoraAdapters::LoadPeft(*model, (dir_ / "adapter").string());
  EXPECT_TRUE(at::equal(before, model->TokenLosses(batch)));
  EXPECT_EQ(loaded->trainable_parameters(), adapters->trainable_parameters());
  EXPECT_EQ(loaded->PeftConfigJson("base"), adapters->PeftConfigJson("base"));
}

}  // namespace
}  // namespace finetuned
