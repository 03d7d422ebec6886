// What the LLaMA sizes of the QLoRA paper need, by method: `nibble plan --paper`.
#pragma once
#include <string>
#include <vector>

#include "train/plan.h"

namespace nibble::train {

struct DeviceRow {
  std::string model;   // "LLaMA 7B"
  std::string method;  // "QLoRA NF4 + double quantization"
  StepPlan plan;
};

// 7B, 13B, 33B and 65B under full fine-tuning, LoRA over bf16 and QLoRA (NF4 + double quantization): one
// sequence of 512 tokens, r = 64 on all linears, paged AdamW and block checkpointing, as the paper trains
// them (appendix B).
std::vector<DeviceRow> paper_plans();

// The rows, and whether each fits a device of 24, 48 or 80 GB.
std::string device_table(const std::vector<DeviceRow>& rows);
Json device_json(const std::vector<DeviceRow>& rows);

}  // namespace nibble::train
