#include "worker/models/safetensors.h"

#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "nlohmann/json.hpp"

namespace finetuned {
namespace {

using Json = nlohmann::json;

// The reference implementation refuses headers over 100 MB; so do we.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

struct DtypeName {
  const char* name;
  at::ScalarType dtype;
};
constexpr DtypeName kDtypeNames[] = {
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
};

const char* NameOfDtype(at::ScalarType dtype) {
  for (const DtypeName& entry : kDtypeNames) {
    if (entry.dtype == dtype) return entry.name;
  }
  throw std::runtime_error(std::string("safetensors has no name for dtype ") +
                           c10::toString(dtype));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

[[noreturn]] void Fail(const std::string& path, const std::string& what) {
  throw std::runtime_error(path + ": " + what);
}
[[noreturn]] void FailTensor(const std::string& path, const std::string& name,
                             const std::string& what) {
  Fail(path, "tensor '" + name + "': " + what);
}

// A read-only mapping of a whole file.
struct Mapping {
  const char* data = nullptr;
  uint64_t size = 0;

  explicit Mapping(const std::string& path) {
    int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) Fail(path, std::string("cannot open: ") + strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      close(fd);
      Fail(path, "is not a regular file");
    }
    size = static_cast<uint64_t>(info.st_size);
    void* mapped = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    close(fd);
    if (mapped == MAP_FAILED) Fail(path, std::string("cannot map: ") + strerror(error));
    data = static_cast<const char*>(mapped);
  }
  ~Mapping() {
    if (data != nullptr) munmap(const_cast<char*>(data), size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

// Parses JSON and refuses duplicate keys at any level, which nlohmann would silently overwrite.
Json ParseHeader(const std::string& path, const char* begin, const char* end) {
  std::vector<std::set<std::string>> open_objects;
  std::string duplicate;
  bool too_deep = false;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 4) too_deep = true;
    if (event == Json::parse_event_t::object_start) {
      open_objects.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open_objects.pop_back();
    } else if (event == Json::parse_event_t::key && !open_objects.empty()) {
      const auto key = parsed.get<std::string>();
      if (!open_objects.back().insert(key).second && duplicate.empty()) duplicate = key;
    }
    return !too_deep;
  };
  Json header;
  try {
    header = Json::parse(begin, end, watch);
  } catch (const Json::exception& error) {
    Fail(path, std::string("the safetensors header is not valid JSON: ") + error.what());
  }
  if (too_deep) Fail(path, "the safetensors header is nested too deeply");
  if (!duplicate.empty()) FailTensor(path, duplicate, "is named twice in the header");
  if (!header.is_object()) Fail(path, "the safetensors header is not a JSON object");
  return header;
}

SafetensorsEntry ParseEntry(const std::string& path, const std::string& name, const Json& value,
                            uint64_t data_bytes) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    FailTensor(path, name, "its header entry must have dtype, shape and data_offsets");
  }
  const Json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  SafetensorsEntry entry;
  const auto* known = std::find_if(std::begin(kDtypeNames), std::end(kDtypeNames), [&](auto& d) {
    return dtype.is_string() && dtype.get_ref<const std::string&>() == d.name;
  });
  if (known == std::end(kDtypeNames)) {
    FailTensor(path, name, "unknown dtype " + dtype.dump());
  }
  entry.dtype = known->dtype;
  uint64_t elements = 1;
  if (!shape.is_array()) FailTensor(path, name, "its shape is not a list");
  for (const Json& extent : shape) {
    if (!extent.is_number_unsigned() ||
        extent.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
        __builtin_mul_overflow(elements, extent.get<uint64_t>(), &elements)) {
      FailTensor(path, name, "impossible shape " + shape.dump());
    }
    entry.shape.push_back(extent.get<int64_t>());
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements, c10::elementSize(entry.dtype), &bytes)) {
    FailTensor(path, name, "impossible shape " + shape.dump());
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    FailTensor(path, name, "its data_offsets are not two byte positions");
  }
  entry.begin = offsets[0].get<uint64_t>();
  entry.end = offsets[1].get<uint64_t>();
  if (entry.begin > entry.end) FailTensor(path, name, "its data_offsets run backwards");
  if (entry.end - entry.begin != bytes) {
    FailTensor(path, name,
               "its shape " + ShapeText(entry.shape) + " in " + known->name + " needs " +
                   std::to_string(bytes) + " bytes but its data_offsets span " +
                   std::to_string(entry.end - entry.begin));
  }
  if (entry.end > data_bytes) {
    FailTensor(path, name,
               "truncated: its data ends at byte " + std::to_string(entry.end) +
                   " of the data section, which has " + std::to_string(data_bytes) +
                   "; download or copy the file again");
  }
  return entry;
}

// The format allows neither overlaps nor holes.
void CheckLayout(const std::string& path, const std::map<std::string, SafetensorsEntry>& entries,
                 uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const SafetensorsEntry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](auto& x, auto& y) {
    return std::make_pair(x.second->begin, x.second->end) <
           std::make_pair(y.second->begin, y.second->end);
  });
  uint64_t position = 0;
  const std::string* previous = nullptr;
  for (auto [name, entry] : order) {
    if (entry->begin < position) FailTensor(path, *name, "overlaps tensor '" + *previous + "'");
    if (entry->begin > position) {
      FailTensor(path, *name, std::to_string(entry->begin - position) + " unnamed bytes before it");
    }
    position = entry->end;
    previous = name;
  }
  if (position != data_bytes) {
    Fail(path, std::to_string(data_bytes - position) + " bytes follow the last tensor");
  }
}

}  // namespace

struct SafetensorsFile::Impl {
  explicit Impl(const std::string& path) : path(path), mapping(path) {}
  std::string path;
  Mapping mapping;
  uint64_t data_begin = 0;
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

std::shared_ptr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  auto impl = std::make_shared<Impl>(path);
  const uint64_t size = impl->mapping.size;
  if (size < 8) {
    Fail(path, "truncated: " + std::to_string(size) + " bytes cannot be a safetensors file");
  }
  uint64_t header_bytes = 0;
  memcpy(&header_bytes, impl->mapping.data, 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes < 2) {
    Fail(path, "its header claims " + std::to_string(header_bytes) +
                   " bytes (2 to 100000000 are possible); this is no safetensors file");
  }
  if (header_bytes > size - 8) {
    Fail(path, "truncated: its header claims " + std::to_string(header_bytes) +
                   " bytes but the file has " + std::to_string(size));
  }
  impl->data_begin = 8 + header_bytes;
  const uint64_t data_bytes = size - impl->data_begin;
  const char* text = impl->mapping.data + 8;
  const Json header = ParseHeader(path, text, text + header_bytes);
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) Fail(path, "__metadata__ is not an object");
      for (const auto& [key, text_value] : value.items()) {
        if (!text_value.is_string()) Fail(path, "__metadata__." + key + " is not a string");
        impl->metadata[key] = text_value.get<std::string>();
      }
      continue;
    }
    impl->entries.emplace(name, ParseEntry(path, name, value, data_bytes));
  }
  CheckLayout(path, impl->entries, data_bytes);
  auto file = std::make_shared<SafetensorsFile>();
  file->impl_ = std::move(impl);
  return file;
}

const std::map<std::string, SafetensorsEntry>& SafetensorsFile::entries() const {
  return impl_->entries;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->metadata;
}

at::Tensor SafetensorsFile::Tensor(const std::string& name) const {
  const auto found = impl_->entries.find(name);
  if (found == impl_->entries.end()) FailTensor(impl_->path, name, "is not in this file");
  const SafetensorsEntry& entry = found->second;
  const char* data = impl_->mapping.data + impl_->data_begin + entry.begin;
  const auto options = at::TensorOptions().dtype(entry.dtype);
  if (entry.begin == entry.end) return at::empty(entry.shape, options);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry.dtype) != 0) {
    // The format does not promise alignment; such a tensor is copied.
    at::Tensor copy = at::empty(entry.shape, options);
    memcpy(copy.mutable_data_ptr(), data, entry.end - entry.begin);
    return copy;
  }
  return at::from_blob(
      const_cast<char*>(data), entry.shape, [keep = impl_](void*) {}, options);
}

struct SafetensorsModel::Impl {
  std::string dir;
  std::map<std::string, std::shared_ptr<SafetensorsFile>> files;
  std::map<std::string, std::string> file_of_tensor;
  std::vector<std::pair<std::string, std::vector<std::string>>> shards;

  void AddFile(const std::string& file_name) {
    auto file = SafetensorsFile::Open(dir + "/" + file_name);
    std::vector<std::pair<uint64_t, std::string>> order;
    for (const auto& [name, entry] : file->entries()) {
      if (!file_of_tensor.emplace(name, file_name).second) {
        FailTensor(dir + "/" + file_name, name, "is also in " + file_of_tensor[name]);
      }
      order.emplace_back(entry.begin, name);
    }
    std::sort(order.begin(), order.end());
    std::vector<std::string> names;
    for (auto& [begin, name] : order) names.push_back(name);
    files[file_name] = std::move(file);
    shards.emplace_back(file_name, std::move(names));
  }
};

std::shared_ptr<SafetensorsModel> SafetensorsModel::Open(const std::string& model_dir) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (!fs::is_directory(model_dir, error)) Fail(model_dir, "is not a directory");
  auto impl = std::make_shared<Impl>();
  impl->dir = model_dir;
  const std::string index_path = model_dir + "/model.safetensors.index.json";
  if (fs::exists(index_path, error)) {
    Json index;
    try {
      std::ifstream stream(index_path);
      index = Json::parse(stream);
    } catch (const Json::exception& parse_error) {
      Fail(index_path, std::string("not valid JSON: ") + parse_error.what());
    }
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object() ||
        index["weight_map"].empty()) {
      Fail(index_path, "has no weight_map");
    }
    std::set<std::string> file_names;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      if (!file.is_string() || file.get_ref<const std::string&>().empty() ||
          file.get_ref<const std::string&>().find('/') != std::string::npos) {
        FailTensor(index_path, tensor, "its file " + file.dump() + " must be a plain file name");
      }
      file_names.insert(file.get<std::string>());
    }
    for (const std::string& name : file_names) impl->AddFile(name);
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      const auto found = impl->file_of_tensor.find(tensor);
      if (found == impl->file_of_tensor.end() || found->second != file.get<std::string>()) {
        FailTensor(index_path, tensor,
                   "is not in " + file.get<std::string>() + ", where the index says it is");
      }
    }
  } else if (fs::exists(model_dir + "/model.safetensors", error)) {
    impl->AddFile("model.safetensors");
  } else if (fs::exists(model_dir + "/pytorch_model.bin", error) ||
             fs::exists(model_dir + "/pytorch_model.bin.index.json", error)) {
    Fail(model_dir,
         "holds pytorch_model.bin, a pickle, which is never loaded (it can run code); convert it "
         "with transformers: AutoModelForCausalLM.from_pretrained(dir).save_pretrained(new_dir)");
  } else {
    Fail(model_dir, "has neither model.safetensors nor model.safetensors.index.json");
  }
  auto model = std::make_shared<SafetensorsModel>();
  model->impl_ = std::move(impl);
  return model;
}

bool SafetensorsModel::Has(const std::string& name) const {
  return impl_->file_of_tensor.count(name) != 0;
}

at::Tensor SafetensorsModel::Tensor(const std::string& name) const {
  const auto found = impl_->file_of_tensor.find(name);
  if (found == impl_->file_of_tensor.end()) FailTensor(impl_->dir, name, "is missing");
  return impl_->files.at(found->second)->Tensor(name);
}

const SafetensorsEntry& SafetensorsModel::Entry(const std::string& name) const {
  const auto found = impl_->file_of_tensor.find(name);
  if (found == impl_->file_of_tensor.end()) FailTensor(impl_->dir, name, "is missing");
  return impl_->files.at(found->second)->entries().at(name);
}

std::vector<std::string> SafetensorsModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : impl_->file_of_tensor) names.push_back(name);
  return names;
}

const std::vector<std::pair<std::string, std::vector<std::string>>>& SafetensorsModel::shards()
    const {
  return impl_->shards;
}

struct SafetensorsWriter::Impl {
  std::string path, temporary;
  std::vector<Declared> declared;
  size_t next = 0;
  int fd = -1;

  void WriteAll(const void* data, size_t size) {
    const char* from = static_cast<const char*>(data);
    while (size > 0) {
      const ssize_t written = write(fd, from, std::min<size_t>(size, 1 << 28));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) Fail(path, std::string("cannot write: ") + strerror(errno));
      from += written;
      size -= static_cast<size_t>(written);
    }
  }
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->temporary = path + ".tmp." + std::to_string(getpid());
  impl_->declared = tensors;
  // Kept in the declared order, so that equal input gives equal bytes.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const Declared& tensor : tensors) {
    uint64_t bytes = c10::elementSize(tensor.dtype);
    for (int64_t extent : tensor.shape) bytes *= static_cast<uint64_t>(extent);
    if (header.contains(tensor.name)) FailTensor(path, tensor.name, "is declared twice");
    header[tensor.name] = {{"dtype", NameOfDtype(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // tensors start aligned
  impl_->fd = open(impl_->temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (impl_->fd < 0) Fail(path, std::string("cannot create: ") + strerror(errno));
  const uint64_t header_bytes = text.size();
  try {
    impl_->WriteAll(&header_bytes, sizeof(header_bytes));
    impl_->WriteAll(text.data(), text.size());
  } catch (...) {
    close(impl_->fd);
    unlink(impl_->temporary.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (impl_->fd >= 0) {
    close(impl_->fd);
    unlink(impl_->temporary.c_str());
  }
}

void SafetensorsWriter::Write(const std::string& name, const at::Tensor& tensor) {
  if (impl_->next >= impl_->declared.size() || impl_->declared[impl_->next].name != name) {
    FailTensor(impl_->path, name,
               impl_->next < impl_->declared.size()
                   ? "is written out of turn; '" + impl_->declared[impl_->next].name + "' is next"
                   : "is written after the last declared tensor");
  }
  const Declared& declared = impl_->declared[impl_->next++];
  if (tensor.scalar_type() != declared.dtype || tensor.sizes() != at::IntArrayRef(declared.shape)) {
    FailTensor(impl_->path, name, "does not have the declared shape and dtype");
  }
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  if (host.nbytes() > 0) impl_->WriteAll(host.const_data_ptr(), host.nbytes());
}

void SafetensorsWriter::Finish() {
  if (impl_->next != impl_->declared.size()) {
    FailTensor(impl_->path, impl_->declared[impl_->next].name, "is declared but was not written");
  }
  if (fsync(impl_->fd) != 0) Fail(impl_->path, std::string("cannot sync: ") + strerror(errno));
  close(std::exchange(impl_->fd, -1));
  if (rename(impl_->temporary.c_str(), impl_->path.c_str()) != 0) {
    const int error = errno;
    unlink(impl_->temporary.c_str());
    Fail(impl_->path, std::string("cannot rename into place: ") + strerror(error));
  }
  const std::string parent = std::filesystem::path(impl_->path).parent_path().string();
  const int dir = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    fsync(dir);
    close(dir);
  }
}

}  // namespace finetuned
