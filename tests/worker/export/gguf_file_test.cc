#include "worker/export/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class GgufFileTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_ / "x.gguf";
  }

  static GgufKeys Keys() {
    return {{"general.architecture", std::string("llama")},
            {"a.u8", uint8_t{200}},
            {"a.i8", int8_t{-5}},
            {"a.u16", uint16_t{60000}},
            {"a.i16", int16_t{-30000}},
            {"a.u32", uint32_t{4000000000}},
            {"a.i32", int32_t{-2000000000}},
            {"a.f32", 1.5f},
            {"a.bool", true},
            {"a.u64", uint64_t{1} << 63},
            {"a.i64", -(int64_t{1} << 62)},
            {"a.f64", 0.1},
            {"a.tokens", GgufArray(std::vector<std::string>{"", "a", "Ġthe"})},
            {"a.types", GgufArray(std::vector<int32_t>{1, 2, 3})},
            {"a.flags", GgufArray(std::vector<bool>{true, false})},
            {"a.doubles", GgufArray(std::vector<double>{1, 2})},
            {"a.empty", GgufArray(std::vector<float>{})}};
  }
  static std::vector<GgufTensorInfo> Tensors() {
    return {{"a.weight", GgufType::kF32, {3}},
            {"b.weight", GgufType::kQ8_0, {2, 64}},
            {"c.weight", GgufType::kF16, {5, 3}}};
  }
  static std::string Data(int64_t bytes, char first) {
    std::string data(static_cast<size_t>(bytes), '\0');
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(first + i);
    return data;
  }
  void WriteWhole() {
    auto writer = GgufWriter::Create(path_, Keys(), Tensors());
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const GgufTensorInfo& tensor : Tensors()) {
      const std::string data = Data(tensor.bytes(), tensor.name[0]);
      ASSERT_TRUE((*writer)->Write(data.substr(0, 5)).ok());
      ASSERT_TRUE((*writer)->Write(data.substr(5)).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  absl::Status OpenBytes(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return GgufFile::Open(path_).status();
  }
  size_t Files() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(dir_), fs::directory_iterator()));
  }

  const TempDir temp_;
  const fs::path dir_ = temp_.path();
  std::string path_;
};

TEST_F(GgufFileTest, ReadsBackWhatWasWritten) {
  WriteWhole();
  const auto file = GgufFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->keys(), Keys());
  ASSERT_EQ((*file)->tensors().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const GgufTensorInfo expected = Tensors()[i], &found = (*file)->tensors()[i];
    EXPECT_EQ(found.name, expected.name);
    EXPECT_EQ(found.type, expected.type);
    EXPECT_EQ(found.shape, expected.shape);
    std::string data(static_cast<size_t>(found.bytes()), '\0');
    ASSERT_TRUE((*file)->Read(i, 0, data.size(), data.data()).ok());
    EXPECT_EQ(data, Data(found.bytes(), found.name[0]));
  }
  EXPECT_EQ(fs::file_size(path_) % 32, 0u);
}

TEST_F(GgufFileTest, WriterRefusesWhatTheFormatCannotHold) {
  const auto create = [this](GgufKeys keys, std::vector<GgufTensorInfo> tensors) {
    return GgufWriter::Create(path_, keys, tensors).status();
  };
  EXPECT_THAT(create({}, {{"x", GgufType::kQ8_0, {2, 33}}}).ToString(), HasSubstr("rows of 33"));
  EXPECT_THAT(create({}, {{"x", GgufType::kF32, {0}}}).ToString(), HasSubstr("extent below 1"));
  EXPECT_THAT(create({}, {{"x", GgufType::kF32, {}}}).ToString(), HasSubstr("1 to 4 extents"));
  EXPECT_THAT(create({}, {{std::string(64, 'x'), GgufType::kF32, {1}}}).ToString(),
              HasSubstr("63 bytes"));
  EXPECT_THAT(create({}, {{"x", GgufType::kF32, {1}}, {"x", GgufType::kF32, {1}}}).ToString(),
              HasSubstr("twice"));
  EXPECT_THAT(create({{"k", true}, {"k", true}}, {}).ToString(), HasSubstr("twice"));
  EXPECT_EQ(Files(), 0u);
}

TEST_F(GgufFileTest, UnfinishedLeavesNothingAndKeepsTheOldFile) {
  std::ofstream(path_) << "old";
  {
    auto writer = GgufWriter::Create(path_, Keys(), Tensors());
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ(Files(), 2u);
    ASSERT_TRUE((*writer)->Write(std::string(12, 'x')).ok());
    EXPECT_FALSE((*writer)->Write(std::string(200, 'x')).ok()) << "reaches into the next tensor";
    EXPECT_THAT((*writer)->Finish().ToString(), HasSubstr("b.weight"));
  }
  EXPECT_EQ(Files(), 1u);
  EXPECT_EQ(*ReadFile(path_), "old");
}

TEST_F(GgufFileTest, AFullDiskLeavesNothing) {
  // A limit on file size stands for the disk: write() fails after part of the data.
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  rlimit small = old;
  small.rlim_cur = 100000;
  setrlimit(RLIMIT_FSIZE, &small);
  absl::Status status;
  {
    auto writer = GgufWriter::Create(path_, Keys(), {{"big", GgufType::kF32, {100000}}});
    ASSERT_TRUE(writer.ok());
    status = (*writer)->Write(std::string(400000, 'x'));
  }
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, handler);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.ToString(), HasSubstr("cannot write"));
  EXPECT_EQ(Files(), 0u);
}

TEST_F(GgufFileTest, NoSuchDirectoryIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(GgufWriter::Create(dir_ / "no" / "x.gguf", {}, {}).status()));
  EXPECT_TRUE(absl::IsNotFound(GgufFile::Open(dir_ / "no.gguf").status()));
  EXPECT_FALSE(GgufFile::Open(dir_).ok());
}

// Builds headers byte by byte.
std::string U32(uint32_t value) { return {reinterpret_cast<const char*>(&value), 4}; }
std::string U64(uint64_t value) { return {reinterpret_cast<const char*>(&value), 8}; }
std::string Text(const std::string& text) { return U64(text.size()) + text; }
std::string Head(uint64_t tensors, uint64_t keys) {
  return "GGUF" + U32(3) + U64(tensors) + U64(keys);
}
std::string Tensor(const std::string& name, std::vector<uint64_t> extents, uint32_t type,
                   uint64_t offset) {
  std::string out = Text(name) + U32(static_cast<uint32_t>(extents.size()));
  for (const uint64_t extent : extents) out += U64(extent);
  return out + U32(type) + U64(offset);
}

TEST_F(GgufFileTest, HostileFilesAreNamedErrors) {
  const std::string pad(64, '\0');
  const std::pair<std::string, const char*> cases[] = {
      {"", "4 bytes"},
      {"GGML" + std::string(100, '\0'), "no GGUF file"},
      {"GGUF" + U32(2) + pad, "version 2"},
      {"GGUF" + U32(0x03000000) + pad, "version 50331648"},
      {Head(0, UINT64_MAX) + pad, "keys cannot be"},
      {Head(UINT64_MAX, 0) + pad, "tensors cannot be"},
      {Head(0, 1) + U64(UINT64_MAX) + pad, "characters cannot be"},
      {Head(0, 1) + Text("") + U32(4) + pad, "name of 0 bytes"},
      {Head(0, 1) + Text("k") + U32(13) + pad, "type 13"},
      {Head(0, 1) + Text("k") + U32(7) + "\x02" + pad, "truth value"},
      {Head(0, 1) + Text("k") + U32(8) + U64(1 << 20) + pad, "characters cannot be"},
      {Head(0, 1) + Text("k") + U32(9) + U32(9) + U64(1) + pad, "list of lists"},
      {Head(0, 1) + Text("k") + U32(9) + U32(8) + U64(uint64_t{1} << 61) + pad,
       "elements cannot be"},
      {Head(0, 1) + Text("k") + U32(9) + U32(12) + U64(uint64_t{1} << 61) + pad,
       "elements cannot be"},
      {Head(0, 2) + Text("k") + U32(0) + "\x01" + Text("k") + U32(0) + "\x01" + pad, "twice"},
      {Head(0, 1) + Text("general.alignment") + U32(4) + U32(0) + pad, "general.alignment"},
      {Head(0, 1) + Text("general.alignment") + U32(4) + U32(48) + pad, "general.alignment"},
      {Head(0, 1) + Text("general.alignment") + U32(10) + U64(32) + pad, "general.alignment"},
      {Head(1, 0) + Tensor("", {1}, 0, 0) + pad, "name of 0 bytes"},
      {Head(1, 0) + Tensor(std::string(64, 'x'), {1}, 0, 0) + pad, "name of 64 bytes"},
      {Head(1, 0) + Tensor("x", {}, 0, 0) + pad, "0 extents"},
      {Head(1, 0) + Tensor("x", {1, 1, 1, 1, 1}, 0, 0) + pad, "5 extents"},
      {Head(1, 0) + Tensor("x", {0}, 0, 0) + pad, "impossible extent"},
      {Head(1, 0) + Tensor("x", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0) + pad,
       "impossible extent"},
      {Head(1, 0) + Tensor("x", {UINT64_MAX}, 0, 0) + pad, "impossible extent"},
      {Head(1, 0) + Tensor("x", {1}, 12, 0) + pad, "ggml type 12"},
      {Head(1, 0) + Tensor("x", {33}, 8, 0) + pad, "rows of 33"},
      {Head(1, 0) + Tensor("x", {4}, 0, 32) + pad, "claims offset 32"},
      {Head(1, 0) + Tensor("x", {uint64_t{1} << 40}, 0, 0) + pad, "truncated"},
      {Head(2, 0) + Tensor("x", {4}, 0, 0) + Tensor("y", {4}, 0, 0) + pad + pad, "claims offset 0"},
      {Head(2, 0) + Tensor("x", {4}, 0, 0) + Tensor("x", {4}, 0, 32) + pad + pad, "twice"},
      {Head(0, 0) + std::string(200, '\0'), "has 224 bytes"},
  };
  for (const auto& [bytes, expected] : cases) {
    const absl::Status status = OpenBytes(bytes);
    EXPECT_TRUE(absl::IsDataLoss(status)) << expected << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(expected));
  }
}

TEST_F(GgufFileTest, EveryTruncationIsAnError) {
  WriteWhole();
  const std::string whole = *ReadFile(path_);
  for (size_t size = 0; size < whole.size(); ++size) {
    // The last tensor has 30 bytes: its padding alone may be missing.
    if (size == whole.size() - 2) continue;
    EXPECT_FALSE(OpenBytes(whole.substr(0, size)).ok()) << size;
  }
  EXPECT_TRUE(OpenBytes(whole.substr(0, whole.size() - 2)).ok());
  EXPECT_FALSE(OpenBytes(whole + '\0').ok());
}

TEST_F(GgufFileTest, RandomMutationsNeverCrash) {
  WriteWhole();
  const std::string whole = *ReadFile(path_);
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int read = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string bytes = whole;
    for (int changes = 1 + static_cast<int>(random() % 4); changes > 0; --changes) {
      const size_t at = random() % bytes.size();
      const unsigned kind = random() % 4;
      if (kind == 0) bytes[at] = static_cast<char>(random());
      if (kind == 1) bytes[at] ^= static_cast<char>(1 << random() % 8);
      if (kind == 2 && at + 8 <= bytes.size()) {
        const uint64_t values[] = {0,       1, UINT64_MAX, uint64_t{1} << 63, uint64_t{1} << 32,
                                   random()};
        memcpy(&bytes[at], &values[random() % 6], 8);
      }
      if (kind == 3) bytes.erase(at, 1 + random() % 16);
      if (bytes.empty()) break;
    }
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
    const auto file = GgufFile::Open(path_);
    if (!file.ok()) continue;
    ++read;
    for (size_t t = 0; t < (*file)->tensors().size(); ++t) {
      std::string data(static_cast<size_t>((*file)->tensors()[t].bytes()), '\0');
      ASSERT_TRUE((*file)->Read(t, 0, data.size(), data.data()).ok());
    }
  }
  EXPECT_GT(read, 20) << "mutations within the data leave a readable file";
}

}  // namespace
}  // namespace finetuned
