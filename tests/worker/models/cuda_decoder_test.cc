// The hand-ordered path on a GPU against the composition of blocks in fp32 on the CPU: gradients of
// every adapter no further from it than the same composition in bf16 is, equal bits run to run and
// with recomputation. Memory is poisoned with NaN where it is allocated.
#include <ATen/Context.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/gpu.h"
#include "tests/worker/models/random_decoder.h"
#include "tests/worker/models/random_inputs.h"

namespace finetuned {
namespace {

struct Case {
  const char* name;
  RandomShape shape;
  RandomBase base = RandomBase::kNf4;
  int64_t rank = 16;
  std::vector<std::string> targets;
  std::vector<int64_t> documents;
  double trained = 1;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

const RandomShape kGrouped = {};  // 8 query heads of 64, 2 of keys
const RandomShape kWide = {.hidden = 512,
                           .intermediate = 1096,
                           .heads = 4,
                           .kv_heads = 4,
                           .head_dim = 128,
                           .layers = 3,
                           .vocabulary = 1003};

const Case kCases[] = {
    {.name = "grouped_queries_nf4", .shape = kGrouped, .documents = {256, 256}},
    {.name = "heads_of_128_dense",
     .shape = kWide,
     .base = RandomBase::kDense,
     .documents = {384, 384, 384}},
    {.name = "packed_documents", .shape = kGrouped, .documents = {1, 59, 97, 700, 3, 164}},
    {.name = "packed_documents_heads_of_128", .shape = kWide, .documents = {1025, 59, 97, 1, 338}},
    {.name = "packed_documents_in_groups",
     .shape = {.hidden = 2048, .intermediate = 512, .heads = 32, .kv_heads = 32, .layers = 2},
     .documents = {1500, 40, 1900, 3, 700, 1100, 60}},
    {.name = "one_document_of_an_odd_length",
     .shape = kWide,
     .base = RandomBase::kFp4,
     .documents = {97}},
    {.name = "one_token", .shape = kGrouped, .documents = {1, 1}, .trained = 0},
    {.name = "few_targets", .shape = kGrouped, .documents = {300, 212}, .trained = 0.2},
    {.name = "rank_4_of_two_modules",
     .shape = kGrouped,
     .rank = 4,
     .targets = {"q_proj", "down_proj"},
     .documents = {256, 256}},
    {.name = "rank_1",
     .shape = kGrouped,
     .base = RandomBase::kNf4SingleScales,
     .rank = 1,
     .targets = {"all-linear"},
     .documents = {256}},
    {.name = "rank_24_keys_and_up",
     .shape = kWide,
     .rank = 24,
     .targets = {"k_proj", "up_proj", "o_proj"},
     .documents = {128, 500}},
    {.name = "one_layer", .shape = {.layers = 1}, .documents = {128, 128}},
};

class CudaDecoder : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    REQUIRE_CUDNN_ATTENTION();
    at::globalContext().setDeterministicAlgorithms(true, false);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
  }
};
INSTANTIATE_TEST_SUITE_P(Cases, CudaDecoder, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

// Loss, then the gradient of each adapter, in fp32 on the CPU.
std::vector<at::Tensor> LossAndGradients(Decoder& model, const LoraAdapters& adapters,
                                         const Batch& batch) {
  const at::Tensor loss = model.LossSum(batch);
  std::vector<at::Tensor> result = {loss.detach().to(at::kCPU, at::kFloat)};
  (loss / static_cast<double>(std::max<int64_t>(1, batch.target_count))).backward();
  for (const AdapterParameter& parameter : adapters.parameters()) {
    result.push_back(parameter.tensor.grad().to(at::kCPU, at::kFloat).clone());
    at::Tensor leaf = parameter.tensor;
    leaf.mutable_grad().reset();
  }
  return result;
}

void ExpectSameBits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b,
                    const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(at::equal(a[i], b[i]))
        << what << ": tensor " << i << " differs by " << (a[i] - b[i]).abs().max().item<float>();
  }
}

double Norm(const at::Tensor& x) { return x.to(at::kDouble).norm().item<double>(); }

TEST_P(CudaDecoder, AsTheComposition) {
  const Case& c = GetParam();
  DecoderWeights weights = RandomWeights(c.shape, c.base, 7);
  DecoderWeights twin_weights = Fp32Twin(weights);
  Decoder model(RandomConfig(c.shape), std::move(weights)),
      twin(RandomConfig(c.shape), std::move(twin_weights));
  const auto adapters = LoraAdapters::Inject(model, LoraSpec(c.rank, c.targets), 3);
  const auto twin_adapters = LoraAdapters::Inject(twin, LoraSpec(c.rank, c.targets), 3);
  RandomB(*adapters, 0.02);
  {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < adapters->parameters().size(); ++i) {
      twin_adapters->parameters()[i].tensor.copy_(adapters->parameters()[i].tensor);
    }
  }
  const Batch batch = RandomBatch(c.documents, c.shape.vocabulary, c.trained, 5, at::kCUDA);
  Batch on_cpu = batch;
  on_cpu.input_ids = batch.input_ids.cpu();
  on_cpu.position_ids = batch.position_ids.cpu();
  on_cpu.targets = batch.targets.cpu();

  const auto reference = LossAndGradients(twin, *twin_adapters, on_cpu);
  model.SetFastPath(false);
  const auto plain = LossAndGradients(model, *adapters, batch);
  model.SetFastPath(true);
  const auto fast = LossAndGradients(model, *adapters, batch);

  const double loss = reference[0].item<double>();
  EXPECT_NEAR(fast[0].item<double>(), loss, 2e-3 * std::max(1.0, std::abs(loss)));
  double squared = 0, fast_squared = 0, plain_squared = 0, worst = 0, worst_plain = 0;
  for (size_t i = 1; i < reference.size(); ++i) {
    const double norm = Norm(reference[i]), off = Norm(fast[i] - reference[i]),
                 plain_off = Norm(plain[i] - reference[i]);
    ASSERT_TRUE(std::isfinite(off)) << adapters->parameters()[i - 1].name;
    squared += norm * norm;
    fast_squared += off * off;
    plain_squared += plain_off * plain_off;
    if (norm == 0) continue;
    worst = std::max(worst, off / norm);
    worst_plain = std::max(worst_plain, plain_off / norm);
  }
  std::printf(
      "%-32s loss %.5f (fp32 %.5f) gradients off by %.2e, worst adapter %.2e (blocks in bf16: "
      "%.2e, %.2e)\n",
      c.name, fast[0].item<double>(), loss, std::sqrt(fast_squared / std::max(squared, 1e-300)),
      worst, std::sqrt(plain_squared / std::max(squared, 1e-300)), worst_plain);
  if (squared > 0) {
    EXPECT_LE(fast_squared, plain_squared);
    EXPECT_LE(worst, std::max(worst_plain, 2e-2));
  }

  ExpectSameBits(fast, LossAndGradients(model, *adapters, batch), "run again");
  model.SetGradientCheckpointing(true);
  ExpectSameBits(fast, LossAndGradients(model, *adapters, batch), "recomputed");
  model.SetGradientCheckpointing(false);
  ExpectSameBits(fast, LossAndGradients(model, *adapters, batch), "kept again");

  // Losses token by token, tuned and base.
  for (const bool tuned : {true, false}) {
    model.SetAdaptersEnabled(tuned);
    twin.SetAdaptersEnabled(tuned);
    const at::Tensor losses = model.TokenLosses(batch).to(at::kCPU, at::kFloat),
                     expected = twin.TokenLosses(on_cpu);
    EXPECT_LT(Norm(losses - expected), 2e-2 * Norm(expected) + 1e-6) << (tuned ? "tuned" : "base");
    if (tuned) {
      EXPECT_NEAR(losses.sum().item<double>(), fast[0].item<double>(),
                  1e-4 * std::abs(loss) + 1e-6);
    }
  }
  model.SetAdaptersEnabled(true);
}

// A batch of another shape in between, and gradients of two micro-batches added.
TEST_F(CudaDecoder, ShapesMayChange) {
  const RandomShape shape;
  Decoder model(RandomConfig(shape), RandomWeights(shape, RandomBase::kNf4, 7));
  const auto adapters = LoraAdapters::Inject(model, LoraSpec(8), 3);
  RandomB(*adapters, 0.02);
  const Batch large = RandomBatch({512, 512, 512}, shape.vocabulary, 1, 5, at::kCUDA),
              small = RandomBatch({5, 60}, shape.vocabulary, 1, 6, at::kCUDA);
  const auto first = LossAndGradients(model, *adapters, small);
  const auto middle = LossAndGradients(model, *adapters, large);
  ExpectSameBits(first, LossAndGradients(model, *adapters, small), "small after large");
  model.SetGradientCheckpointing(true);
  ExpectSameBits(first, LossAndGradients(model, *adapters, small), "small, recomputed");
  ExpectSameBits(middle, LossAndGradients(model, *adapters, large), "large, recomputed");
  model.SetGradientCheckpointing(false);
  (model.LossSum(small) / static_cast<double>(small.target_count)).backward();
  (model.LossSum(large) / static_cast<double>(large.target_count)).backward();
  for (size_t i = 0; i < adapters->parameters().size(); ++i) {
    EXPECT_TRUE(
        at::equal(adapters->parameters()[i].tensor.grad().cpu(), first[i + 1] + middle[i + 1]));
  }
}

TEST_F(CudaDecoder, ALossWhoseActivationsAreGoneIsRefused) {
  const RandomShape shape;
  Decoder model(RandomConfig(shape), RandomWeights(shape, RandomBase::kNf4, 7));
  const auto adapters = LoraAdapters::Inject(model, LoraSpec(8), 3);
  const Batch batch = RandomBatch({128}, shape.vocabulary, 1, 5, at::kCUDA);
  const at::Tensor first = model.LossSum(batch);
  model.LossSum(batch);
  EXPECT_THROW(first.backward(), std::exception);
}

}  // namespace
}  // namespace finetuned
