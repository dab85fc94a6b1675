// safetensors files (github.com/huggingface/safetensors, format description in its README): an
// 8-byte little-endian header length, a JSON header, then raw tensors.
//
// Errors: std::runtime_error naming file and tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace finetuned {

struct SafetensorsEntry {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the data section
};

// One memory-mapped file. The header is validated on opening: sizes, overlaps, dtype, shape against
// bytes.
class SafetensorsFile {
 public:
  static std::shared_ptr<SafetensorsFile> Open(const std::string& path);
  const std::map<std::string, SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  // A CPU tensor over the mapping (read-only by convention; keeps the mapping alive).
  at::Tensor Tensor(const std::string& name) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// All shards of a model directory: model.safetensors, or those named by
// model.safetensors.index.json. A directory with only pytorch_model.bin is refused with the way to
// convert it.
class SafetensorsModel {
 public:
  static std::shared_ptr<SafetensorsModel> Open(const std::string& model_dir);
  bool Has(const std::string& name) const;
  at::Tensor Tensor(const std::string& name) const;
  const SafetensorsEntry& Entry(const std::string& name) const;
  std::vector<std::string> names() const;
  // File names of the shards in order, and the tensors of each: a merged model keeps this layout.
  const std::vector<std::pair<std::string, std::vector<std::string>>>& shards() const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};

// Streams a safetensors file: declare all tensors, then write them in that order; Finish fsyncs and
// renames into place.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    at::ScalarType dtype;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                    const std::map<std::string, std::string>& metadata);
  ~SafetensorsWriter();  // without Finish: the temporary file is removed
  void Write(const std::string& name, const at::Tensor& tensor);
  void Finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace finetuned
