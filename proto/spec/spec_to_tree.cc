// JobSpec → value tree.
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/spec/leaf_value.h"
#include "proto/spec/spec.h"

namespace finetuned {

using google::protobuf::Message;

SpecValue SpecToTree(const v1::JobSpec& spec) {
  SpecValue root = SpecValue::Map();
  for (const KeyInfo& info : AllKeys()) {
    if (info.in_list) continue;
    const Message& parent = ParentOf(spec, info);
    if (!LeafIsSet(parent, info.chain.back())) continue;
    SpecValue* block = &root;
    for (size_t i = 0; i + 1 < info.chain.size(); ++i) {
      // Keys of a block are neighbours in the table, so an open block is the last entry.
      if (block->entries.empty() || block->entries.back().first != info.chain[i]->name()) {
        block->entries.emplace_back(info.chain[i]->name(), SpecValue::Map());
      }
      block = &block->entries.back().second;
    }
    block->entries.emplace_back(info.chain.back()->name(),
                                LeafToValue(parent, info.chain.back(), info.type));
  }
  return root;
}

}  // namespace finetuned
