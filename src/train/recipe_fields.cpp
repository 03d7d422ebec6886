// The one list of recipe keys.
#include "train/recipe.h"

namespace nibble::train {
namespace {

constexpr auto kMust = OnResume::kMustMatch;
constexpr auto kMay = OnResume::kMayChange;
constexpr auto kContent = OnResume::kByContent;
using enum FieldType;

const Field kFields[] = {
    {"model", "Model and data", kText, &Recipe::model, kContent,
     "The base model: a Hugging Face directory, a .gguf file or a llama2.c .bin."},
    {"tokenizer", "Model and data", kText, &Recipe::tokenizer, kContent,
     "Where the tokenizer is; empty: beside the weights."},
    {"data", "Model and data", kData, &Recipe::data, kContent,
     "What is trained on: a path, a list of paths, or a list of {path, format, weight, skip, take}. Formats "
     "are found by looking; skip and take say which examples of it; weight is the "
     "share of a set that each epoch draws."},
    {"adapter", "Model and data", kText, &Recipe::adapter, kMust,
     "Go on from this PEFT adapter (its rank, alpha and targets hold) instead of a fresh one."},
    {"out", "Model and data", kText, &Recipe::out, kMay,
     "The run directory. Empty: runs/ with a name made of the model and the data."},
    {"train_on_source", "Model and data", kSwitch, &Recipe::train_on_source, kMust,
     "Learn the instructions and the user's turns as well, not the answers alone."},
    {"split_special_tokens", "Model and data", kSwitch, &Recipe::split_special_tokens, kMust,
     "Special tokens spelled inside a message stay text; false: they become the tokens, as with "
     "Transformers."},
    {"eval_data", "Model and data", kData, &Recipe::eval_data, kContent,
     "Held-out data, written like data. Empty: a part of the training data is held out."},
    {"eval_fraction", "Model and data", kNumber, &Recipe::eval_fraction, kMust,
     "Share of the training data that is held out when there is no eval_data (at most 200 examples); 0 holds "
     "nothing out.",
     0, 0.9},

    {"quantize", "Frozen base", kText, &Recipe::quantize, kMust,
     "Format of the frozen linear weights: nf4, fp4, e2m1, e3m0, int4, af4, nf3, nf2, int8, q2_k to q6_k, "
     "stored (a GGUF's own blocks) or none."},
    {"double_quant", "Frozen base", kSwitch, &Recipe::double_quant, kMust,
     "Quantize the scales of blocks too: 4.127 bits a weight instead of 4.5 with nf4. Formats without such "
     "scales ignore the default."},
    {"block_size", "Frozen base", kInteger, &Recipe::block_size, kMust,
     "Weights that share one scale: 32, 64, 128 … 4096.", 32, 4096},

    {"method", "Method", kChoice, &Recipe::method, kMust,
     "lora trains adapters over the frozen base; full trains every weight (quantize must be none).", 0, 0,
     "lora|full"},
    {"task", "Method", kChoice, &Recipe::task, kMust,
     "What is learned: causal_lm the next token; seq2seq the response after the prompt, by an "
     "encoder–decoder (T5); classification or regression a label of each text, by an encoder (BERT, RoBERTa) "
     "on GLUE's "
     "tasks, whose head is trained whole. auto looks at model and data. A classifier takes one example a "
     "sequence where packing is not given.",
     0, 0, "auto|causal_lm|seq2seq|classification|regression"},
    {"init", "Method", kChoice, &Recipe::init, kMust,
     "weights starts from the model's own; random trains from nothing: model is then a directory with "
     "config.json and a tokenizer, and method "
     "full.",
     0, 0, "weights|random"},
    {"lora_r", "Method", kInteger, &Recipe::lora_r, kMust, "Rank of the adapters.", 1, 65536},
    {"lora_alpha", "Method", kNumber, &Recipe::lora_alpha, kMust,
     "The adapter's output is scaled by lora_alpha / lora_r.", 0, 1e6},
    {"lora_dropout", "Method", kNumber, &Recipe::lora_dropout, kMust,
     "Share of an adapter's inputs that is dropped in training.", 0, 0.99},
    {"use_rslora", "Method", kSwitch, &Recipe::use_rslora, kMust,
     "Scale by lora_alpha / sqrt(lora_r) instead (rank-stabilised)."},
    {"init_lora_weights", "Method", kChoice, &Recipe::init_lora_weights, kMust,
     "What adapters begin as: kaiming nothing (A random, B zero); loftq the best they can hold of what "
     "quantizing the base lost (Li et al. 2023), which needs a model that is not quantized yet.",
     0, 0, "kaiming|loftq"},
    {"target_modules", "Method", kList, &Recipe::target_modules, kMust,
     "Which linear layers get an adapter: names such as q_proj, one regular expression over whole paths, or "
     "all-linear (all but the head)."},

    {"learning_rate", "Optimizer", kNumber, &Recipe::learning_rate, kMust, "Peak learning rate.", 0, 100},
    {"lr_scheduler_type", "Optimizer", kChoice, &Recipe::lr_scheduler_type, kMust,
     "Learning rate after warm-up: constant, or falling to zero at the last step.", 0, 0,
     "constant|linear|cosine"},
    {"warmup_ratio", "Optimizer", kNumber, &Recipe::warmup_ratio, kMust,
     "Share of the steps over which the rate rises from zero, under every schedule; warmup_steps goes before "
     "it.",
     0, 1},
    {"warmup_steps", "Optimizer", kInteger, &Recipe::warmup_steps, kMust,
     "Steps of warm-up; 0: as warmup_ratio says.", 0, 1e12},
    {"weight_decay", "Optimizer", kNumber, &Recipe::weight_decay, kMust,
     "Decoupled weight decay; sgd adds it to the gradient.", 0, 100},
    {"max_grad_norm", "Optimizer", kNumber, &Recipe::max_grad_norm, kMust,
     "Gradients are scaled down to this global norm; 0: never.", 0, 1e12},
    {"optim", "Optimizer", kChoice, &Recipe::optim, kMust,
     "The optimizer. 8bit keeps its state in 8 bits (blocks of 256); paged keeps it in a file and holds "
     "paged_memory of it, with the same result.",
     0, 0, "adamw|adamw_8bit|paged_adamw|paged_adamw_8bit|sgd|lion"},
    {"adam_beta1", "Optimizer", kNumber, &Recipe::adam_beta1, kMust, "First-moment decay of AdamW and Lion.",
     0, 0.999999},
    {"adam_beta2", "Optimizer", kNumber, &Recipe::adam_beta2, kMust,
     "Second-moment decay of AdamW; of Lion's state.", 0, 0.9999999},
    {"adam_epsilon", "Optimizer", kNumber, &Recipe::adam_epsilon, kMust,
     "Added to the root of AdamW's second moment.", 0, 1},
    {"sgd_momentum", "Optimizer", kNumber, &Recipe::sgd_momentum, kMust, "Momentum of sgd.", 0, 0.999999},
    {"paged_memory", "Optimizer", kBytes, &Recipe::paged_memory, kMay,
     "Most optimizer state that a paged optimizer holds in memory at a time.", 192 << 10, 1e15},

    {"per_device_train_batch_size", "Batch", kInteger, &Recipe::per_device_train_batch_size, kMust,
     "Sequences of max_seq_length in a micro-batch.", 1, 65536},
    {"gradient_accumulation_steps", "Batch", kInteger, &Recipe::gradient_accumulation_steps, kMust,
     "Micro-batches in an optimizer step. The loss is the mean over the trained tokens of the whole step.", 1,
     65535},
    {"max_steps", "Batch", kInteger, &Recipe::max_steps, kMay,
     "Optimizer steps of the run; 0: as num_train_epochs says.", 0, 1e12},
    {"num_train_epochs", "Batch", kNumber, &Recipe::num_train_epochs, kMay, "Passes over the training data.",
     0, 1e6},
    {"max_seq_length", "Batch", kInteger, &Recipe::max_seq_length, kMust,
     "Longest sequence in tokens, of an encoder–decoder source and target each; 0: what the data needs, up "
     "to the model's context.",
     0, 1 << 24},
    {"source_max_length", "Batch", kInteger, &Recipe::source_max_length, kMust,
     "Prompts are cut to so many tokens, as the QLoRA script does; 0: no limit of their own.", 0, 1 << 24},
    {"target_max_length", "Batch", kInteger, &Recipe::target_max_length, kMust,
     "Responses are cut to so many tokens, as the QLoRA script does; 0: no limit of their own.", 0, 1 << 24},
    {"packing", "Batch", kSwitch, &Recipe::packing, kMust,
     "Several short examples share a sequence; none attends to another."},
    {"group_by_length", "Batch", kSwitch, &Recipe::group_by_length, kMust,
     "With packing false: the examples of a step are of about one length, as the QLoRA script orders them."},
    {"overlong", "Batch", kChoice, &Recipe::overlong, kMust,
     "What happens to examples longer than max_seq_length: error counts them and stops.", 0, 0,
     "error|truncate|drop|split"},

    {"gradient_checkpointing", "Memory", kChoice, &Recipe::gradient_checkpointing, kMay,
     "What backward makes again instead of keeping: none; selective: norms and activations; block: each "
     "block's forward. The result is "
     "the same bit for bit.",
     0, 0, "none|selective|block"},
    {"memory_limit", "Memory", kBytes, &Recipe::memory_limit, kMay,
     "Most memory the run may plan, such as 2GB; where gradient_checkpointing is not given, the fastest "
     "policy that fits is taken. 0: no limit.",
     0, 1e18},

    {"eval_steps", "Evaluation and saving", kInteger, &Recipe::eval_steps, kMay,
     "Score the held-out data every so many steps, keep the best adapter; 0: at the end alone.", 0, 1e12},
    {"save_steps", "Evaluation and saving", kInteger, &Recipe::save_steps, kMay,
     "Write a checkpoint every so many steps; 0: only when interrupted and at the end.", 0, 1e12},
    {"save_total_limit", "Evaluation and saving", kInteger, &Recipe::save_total_limit, kMay,
     "Checkpoints that are kept.", 1, 1e6},
    {"logging_steps", "Evaluation and saving", kInteger, &Recipe::logging_steps, kMay,
     "Steps between lines of metrics.jsonl and of the plain display.", 1, 1e9},
    {"on_nonfinite", "Evaluation and saving", kChoice, &Recipe::on_nonfinite, kMay,
     "A loss or gradient that is not finite: stop names the step, layer and operation; skip leaves that step "
     "out and counts it.",
     0, 0, "stop|skip"},

    {"seed", "Machine", kInteger, &Recipe::seed, kMust, "Names every random number of the run.", 0,
     9007199254740992.0},
    {"dtype", "Machine", kChoice, &Recipe::dtype, kMust,
     "Type of activations and products; adapters, gradients and optimizer are f32 in both.", 0, 0,
     "bf16|f32"},
    {"device", "Machine", kChoice, &Recipe::device, kMust, "Where it runs.", 0, 0, "auto|cpu"},
    {"threads", "Machine", kInteger, &Recipe::threads, kMay,
     "Threads; 0: one per processor. The result does not depend on it.", 0, 1024},
};

}  // namespace

std::span<const Field> recipe_fields() { return kFields; }

}  // namespace nibble::train
