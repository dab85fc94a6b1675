// Reading and writing safetensors: round trips, every kind of damage with the tensor it names,
// random mutations.
#include "worker/models/safetensors.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest()
      : dir_(fs::temp_directory_path() /
             ("safetensors_test_" + std::to_string(getpid()) + "_" +
              testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(dir_);
  }
  ~SafetensorsTest() override { fs::remove_all(dir_); }

  std::string Path(const std::string& name) const { return (dir_ / name).string(); }
  std::string WriteRaw(const std::string& header, const std::string& data) const {
    std::ofstream out(Path("raw.safetensors"), std::ios::binary);
    const uint64_t size = header.size();
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << header << data;
    return Path("raw.safetensors");
  }
  static std::string ErrorOf(const std::string& path) {
    try {
      SafetensorsFile::Open(path);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string WriteSample(const std::string& name) const {
    SafetensorsWriter writer(
        Path(name),
        {{"a", at::kFloat, {2, 3}}, {"b", at::kBFloat16, {5}}, {"e", at::kLong, {0, 4}}},
        {{"format", "pt"}});
    writer.Write("a", at::arange(6, at::kFloat).view({2, 3}));
    writer.Write("b", at::arange(5, at::kFloat).to(at::kBFloat16));
    writer.Write("e", at::empty({0, 4}, at::kLong));
    writer.Finish();
    return Path(name);
  }

  fs::path dir_;
};

TEST_F(SafetensorsTest, RoundTrip) {
  const auto file = SafetensorsFile::Open(WriteSample("x.safetensors"));
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_TRUE(at::equal(file->Tensor("a"), at::arange(6, at::kFloat).view({2, 3})));
  EXPECT_EQ(file->Tensor("b").scalar_type(), at::kBFloat16);
  EXPECT_EQ(file->Tensor("e").sizes(), at::IntArrayRef({0, 4}));
  at::Tensor kept;
  kept = SafetensorsFile::Open(Path("x.safetensors"))
             ->Tensor("a");  // the mapping outlives the file object
  EXPECT_EQ(kept.sum().item<float>(), 15);
}

TEST_F(SafetensorsTest, UnfinishedFileIsRemoved) {
  {
    SafetensorsWriter writer(Path("y.safetensors"), {{"a", at::kFloat, {2}}}, {});
    EXPECT_THROW(writer.Finish(), std::runtime_error);
    EXPECT_THROW(writer.Write("b", at::zeros({2})), std::runtime_error);
    EXPECT_THROW(writer.Write("a", at::zeros({3})), std::runtime_error);
  }
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(SafetensorsTest, DamageNamesTheTensor) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  EXPECT_EQ(ErrorOf(WriteRaw(good, std::string(8, 'x'))), "no error");
  EXPECT_THAT(ErrorOf(WriteRaw(good, std::string(7, 'x'))), HasSubstr("tensor 'a': truncated"));
  EXPECT_THAT(ErrorOf(WriteRaw(good, std::string(9, 'x'))), HasSubstr("follow the last tensor"));
  const auto entry = [&](const std::string& text) {
    return ErrorOf(WriteRaw("{\"w\":" + text + "}", std::string(8, 'x')));
  };
  EXPECT_THAT(entry(R"({"dtype":"F7","shape":[2],"data_offsets":[0,8]})"),
              HasSubstr("'w': unknown dtype"));
  EXPECT_THAT(entry(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
              HasSubstr("needs 12 bytes"));
  EXPECT_THAT(entry(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})"),
              HasSubstr("impossible shape"));
  EXPECT_THAT(entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
              HasSubstr("impossible"));
  EXPECT_THAT(entry(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), HasSubstr("backwards"));
  EXPECT_THAT(entry(R"({"dtype":"F32","shape":[2]})"), HasSubstr("must have dtype"));
  EXPECT_THAT(entry("7"), HasSubstr("must have dtype"));
  EXPECT_THAT(ErrorOf(WriteRaw(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                               R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                               std::string(12, 'x'))),
              HasSubstr("'b': overlaps tensor 'a'"));
  EXPECT_THAT(ErrorOf(WriteRaw(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                               R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                               std::string(8, 'x'))),
              HasSubstr("'a': is named twice"));
  EXPECT_THAT(ErrorOf(WriteRaw("{\"a\":", "")), HasSubstr("not valid JSON"));
}

TEST_F(SafetensorsTest, AbsurdHeaderSizes) {
  for (const uint64_t size :
       {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, ~uint64_t{0}, uint64_t{1000}}) {
    std::ofstream out(Path("z.safetensors"), std::ios::binary);
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << "{}";
    out.close();
    EXPECT_THAT(ErrorOf(Path("z.safetensors")),
                testing::AnyOf(HasSubstr("header claims"), HasSubstr("truncated")));
  }
  std::ofstream(Path("empty.safetensors"));
  EXPECT_THAT(ErrorOf(Path("empty.safetensors")), HasSubstr("truncated: 0 bytes"));
}

TEST_F(SafetensorsTest, ShardedIndex) {
  WriteSample("one.safetensors");
  std::ofstream(Path("model.safetensors.index.json"))
      << R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","e":"one.safetensors"}})";
  const auto model = SafetensorsModel::Open(dir_.string());
  EXPECT_TRUE(model->Has("b"));
  EXPECT_EQ(model->shards().size(), 1u);
  EXPECT_THAT(model->shards()[0].second, testing::UnorderedElementsAre("a", "e", "b"));
  std::ofstream(Path("model.safetensors.index.json"))
      << R"({"weight_map":{"q":"one.safetensors"}})";
  EXPECT_THROW(SafetensorsModel::Open(dir_.string()), std::runtime_error);
  std::ofstream(Path("model.safetensors.index.json"))
      << R"({"weight_map":{"a":"../../etc/passwd"}})";
  EXPECT_THROW(SafetensorsModel::Open(dir_.string()), std::runtime_error);
}

TEST_F(SafetensorsTest, PickleIsRefusedWithTheCure) {
  std::ofstream(Path("pytorch_model.bin")) << "x";
  try {
    SafetensorsModel::Open(dir_.string());
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("save_pretrained"));
  }
}

TEST_F(SafetensorsTest, RandomMutationsNeverCrash) {
  std::ifstream in(WriteSample("x.safetensors"), std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), {});
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  int opened = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (uint32_t edits = random() % 4 + 1; edits > 0 && !bytes.empty(); --edits) {
      const size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.erase(at, random() % 8 + 1);
          break;
        case 2:
          bytes.insert(at, 1, "0123456789[]{},:\"-eE"[random() % 20]);
          break;
        default:
          bytes.resize(at);
          break;
      }
    }
    std::ofstream(Path("m.safetensors"), std::ios::binary) << bytes;
    try {
      const auto file = SafetensorsFile::Open(Path("m.safetensors"));
      ++opened;
      for (const auto& [name, entry] : file->entries()) {
        const at::Tensor tensor = file->Tensor(name);
        if (tensor.nbytes() > 0) tensor.view({-1}).clone();  // every byte can be read
      }
    } catch (const std::runtime_error&) {
    }
  }
  EXPECT_LT(opened, 2000);
}

}  // namespace
}  // namespace finetuned
