#include "worker/export/gguf.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf_file.h"
#include "worker/export/gguf_llama.h"

namespace finetuned {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 20;  // read, encoded and written at a time

// Calls step(begin, end) for runs of rows of about kChunkElements.
template <typename Step>
absl::Status ForChunks(const TensorSource& source, Step step) {
  const int64_t rows = std::max<int64_t>(1, kChunkElements / source.columns());
  for (int64_t begin = 0; begin < source.rows(); begin += rows) {
    FT_RETURN_IF_ERROR(step(begin, std::min(begin + rows, source.rows())));
  }
  return absl::OkStatus();
}

// Weights that are not finite, or not so in the file's type, would make an answer of nonsense that
// no one expects.
absl::Status CheckRange(const PlannedTensor& tensor, const std::vector<float>& values, int64_t n) {
  const float most = GgufLargest(tensor.info.type);
  const auto* bad = std::find_if_not(values.data(), values.data() + n,
                                     [most](float x) { return std::fabs(x) <= most; });
  if (bad == values.data() + n) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "tensor '", tensor.source, "' holds ", *bad,
      std::isfinite(*bad) ? absl::StrCat(", which ", GgufTypeName(tensor.info.type),
                                         " cannot hold (at most ", most, "); export bf16 or f32")
                          : std::string("; the model is damaged or its training diverged")));
}

absl::Status WriteTensor(const GgufPlan& plan, const PlannedTensor& tensor,
                         const std::function<bool()>& cancelled, GgufWriter& writer) {
  const TensorSource source(plan, tensor);
  std::vector<float> values;
  std::vector<char> encoded;
  return ForChunks(source, [&](int64_t begin, int64_t end) -> absl::Status {
    if (cancelled && cancelled()) return absl::CancelledError("GGUF export cancelled");
    const int64_t n = (end - begin) * source.columns();
    values.resize(static_cast<size_t>(n));
    encoded.resize(static_cast<size_t>(GgufBytes(tensor.info.type, n)));
    source.Read(begin, end, values.data());
    FT_RETURN_IF_ERROR(CheckRange(tensor, values, n));
    const int64_t block = GgufBlockElements(tensor.info.type);
    at::parallel_for(0, n / block, 4096, [&](int64_t first, int64_t last) {
      EncodeGguf(tensor.info.type, values.data() + first * block, (last - first) * block,
                 encoded.data() + GgufBytes(tensor.info.type, first * block));
    });
    return writer.Write({encoded.data(), encoded.size()});
  });
}

absl::StatusOr<GgufReport> Write(
    const GgufRequest& request,
    const std::function<void(int64_t, int64_t, const std::string&)>& progress,
    const std::function<bool()>& cancelled) {
  FT_ASSIGN_OR_RETURN(GgufPlan plan, PlanGguf(request));
  std::vector<GgufTensorInfo> table;
  for (const PlannedTensor& tensor : plan.tensors) table.push_back(tensor.info);
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                      GgufWriter::Create(request.output_path, plan.keys, std::move(table)));
  const auto total = static_cast<int64_t>(plan.tensors.size());
  for (int64_t i = 0; i < total; ++i) {
    if (progress) progress(i, total, plan.tensors[i].info.name);
    FT_RETURN_IF_ERROR(WriteTensor(plan, plan.tensors[i], cancelled, *writer));
  }
  FT_RETURN_IF_ERROR(writer->Finish());
  if (progress) progress(total, total, request.output_path);
  return GgufReport{total, writer->bytes_written(), std::move(plan.notes)};
}

absl::Status CheckKeys(const std::string& path, const GgufKeys& expected, const GgufKeys& found) {
  for (size_t i = 0; i < std::max(expected.size(), found.size()); ++i) {
    if (i < expected.size() && i < found.size() && expected[i] == found[i]) continue;
    const std::string& name = i < expected.size() ? expected[i].first : found[i].first;
    const char* what = i >= found.size()                     ? "is missing"
                       : i >= expected.size()                ? "should not be there"
                       : expected[i].first != found[i].first ? "is not in its place"
                                                             : "has another value than the model";
    return absl::DataLossError(absl::StrCat(path, ": key '", name, "' ", what));
  }
  return absl::OkStatus();
}

// Compares one tensor and returns max |difference| / max |source|.
absl::StatusOr<double> CheckTensor(const GgufRequest& request, const GgufPlan& plan,
                                   const GgufFile& file, size_t index) {
  const PlannedTensor& tensor = plan.tensors[index];
  const GgufTensorInfo &expected = tensor.info, &found = file.tensors()[index];
  if (found.name != expected.name || found.type != expected.type || found.shape != expected.shape) {
    return absl::DataLossError(absl::StrCat(
        request.output_path, ": tensor ", index, " is '", found.name, "' of type ",
        GgufTypeName(found.type), ", expected '", expected.name, "' of type ",
        GgufTypeName(expected.type), found.shape == expected.shape ? "" : " in another shape"));
  }
  const TensorSource source(plan, tensor);
  std::vector<float> values, decoded;
  std::vector<char> encoded;
  double largest = 0, worst = 0;
  FT_RETURN_IF_ERROR(ForChunks(source, [&](int64_t begin, int64_t end) -> absl::Status {
    const int64_t n = (end - begin) * source.columns();
    values.resize(static_cast<size_t>(n));
    decoded.resize(static_cast<size_t>(n));
    encoded.resize(static_cast<size_t>(GgufBytes(expected.type, n)));
    source.Read(begin, end, values.data());
    FT_RETURN_IF_ERROR(file.Read(index, GgufBytes(expected.type, begin * source.columns()),
                                 encoded.size(), encoded.data()));
    DecodeGguf(expected.type, encoded.data(), n, decoded.data());
    const int64_t at = FirstBeyondRounding(expected.type, values.data(), decoded.data(), n);
    if (at >= 0) {
      return absl::DataLossError(
          absl::StrCat(request.output_path, ": tensor '", expected.name, "' holds ", decoded[at],
                       " in row ", begin + at / source.columns(), ", column ",
                       at % source.columns(), " where the model has ", values[at], "; ",
                       GgufTypeName(expected.type), "'s rounding does not explain that"));
    }
    for (int64_t i = 0; i < n; ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(values[i])));
      worst = std::max(worst, std::fabs(static_cast<double>(decoded[i]) - values[i]));
    }
    return absl::OkStatus();
  }));
  return largest == 0 ? 0 : worst / largest;
}

absl::StatusOr<GgufCheck> Check(const GgufRequest& request) {
  FT_ASSIGN_OR_RETURN(const GgufPlan plan, PlanGguf(request));
  FT_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, GgufFile::Open(request.output_path));
  FT_RETURN_IF_ERROR(CheckKeys(request.output_path, plan.keys, file->keys()));
  if (file->tensors().size() != plan.tensors.size()) {
    return absl::DataLossError(absl::StrCat(request.output_path, ": holds ", file->tensors().size(),
                                            " tensors, expected ", plan.tensors.size()));
  }
  GgufCheck check{static_cast<int64_t>(plan.tensors.size())};
  for (size_t i = 0; i < plan.tensors.size(); ++i) {
    FT_ASSIGN_OR_RETURN(const double error, CheckTensor(request, plan, *file, i));
    check.max_relative_error = std::max(check.max_relative_error, error);
  }
  return check;
}

}  // namespace

absl::StatusOr<GgufReport> WriteGguf(
    const GgufRequest& request,
    const std::function<void(int64_t, int64_t, const std::string&)>& progress,
    const std::function<bool()>& cancelled) {
  try {
    return Write(request, progress, cancelled);
  } catch (const std::exception& error) {  // of the model's files
    return absl::InvalidArgumentError(error.what());
  }
}

absl::StatusOr<GgufCheck> CheckGguf(const GgufRequest& request) {
  try {
    return Check(request);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(error.what());
  }
}

}  // namespace finetuned
