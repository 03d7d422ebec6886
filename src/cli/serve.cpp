// nibble serve: a model, and adapters over it, behind OpenAI's API.
#include <httplib.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

#include "base/log.h"
#include "base/process.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/generation_options.h"
#include "cli/generation_queue.h"
#include "cli/openai.h"
#include "cli/session.h"

namespace nibble::cli {
namespace {

constexpr size_t kThreads = 40,
                 kMostWaiting = 32;  // a waiting client holds a thread; some stay free for refusals
constexpr size_t kMostBytes = size_t{16} << 20;  // of a request

struct Served {
  std::string name;
  std::vector<autograd::AdapterSpan> adapters;
};

class Server {
 public:
  Server(Session& session, std::vector<Served> models, eval::GenerateOptions defaults)
      : session_(session), models_(std::move(models)), defaults_(std::move(defaults)), queue_(kMostWaiting) {
    http_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    http_.set_payload_max_length(kMostBytes);
    http_.set_keep_alive_max_count(1000);
    http_.Get("/health", [](const httplib::Request&, httplib::Response& res) {
      set_json(res, 200, {{"status", "ok"}});
    });
    http_.Get("/v1/models",
              [this](const httplib::Request&, httplib::Response& res) { set_json(res, 200, list_models()); });
    http_.Get("/v1/models/(.+)", [this](const httplib::Request& req, httplib::Response& res) {
      guard(res, [&] { set_json(res, 200, describe(models_[find_model(req.matches[1].str())])); });
    });
    http_.Post("/v1/chat/completions", [this](const httplib::Request& req, httplib::Response& res) {
      guard(res, [&] { answer(req, res, true); });
    });
    http_.Post("/v1/completions", [this](const httplib::Request& req, httplib::Response& res) {
      guard(res, [&] { answer(req, res, false); });
    });
    http_.set_error_handler([](const httplib::Request& req, httplib::Response& res) {
      if (!res.body.empty()) return;
      const std::string what =
          res.status == 404
              ? fmt::format("there is no {} {}; see /v1/models, /v1/chat/completions and /v1/completions",
                            req.method, req.path)
          : res.status == 413 ? fmt::format("the request is larger than {} bytes", kMostBytes)
                              : fmt::format("the request was refused with status {}", res.status);
      set_json(res, res.status, ApiError(res.status, what).to_json());
    });
  }

  // Errors: the address cannot be had.
  int bind(const std::string& host, int64_t port) {
    // The library's default (SO_REUSEPORT) would let two servers share a port.
    http_.set_socket_options([](socket_t socket) {
      const int yes = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    const int bound =
        port == 0 ? http_.bind_to_any_port(host.c_str())
                  : (http_.bind_to_port(host.c_str(), static_cast<int>(port)) ? static_cast<int>(port) : -1);
    require(bound > 0, "serve", "cannot listen on {}:{}; is the port taken? (--port 0 takes a free one)",
            host, port);
    return bound;
  }

  // Answers until Ctrl-C.
  void serve() {
    std::thread listener([this] { http_.listen_after_bind(); });
    while (!http_.is_running())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // stop() needs that
    while (!interrupted())
      if (const auto job = queue_.pop()) run(*job);
    queue_.close();
    http_.stop();
    listener.join();
  }

 private:
  static void set_json(httplib::Response& res, int status, const Json& json) {
    res.status = status;
    res.set_content(dump_json(json), "application/json");
  }

  template <class F>
  static void guard(httplib::Response& res, const F& act) {
    try {
      act();
    } catch (const ApiError& e) {
      set_json(res, e.status, e.to_json());
    } catch (const std::exception& e) {
      log_warning("a request failed: {}", e.what());
      set_json(res, 500, ApiError(500, e.what()).to_json());
    }
  }

  Json describe(const Served& served) const {
    return {{"id", served.name}, {"object", "model"}, {"created", started_}, {"owned_by", "nibble"}};
  }
  Json list_models() const {
    Json list = Json::array();
    for (const Served& served : models_) list.push_back(describe(served));
    return {{"object", "list"}, {"data", list}};
  }

  size_t find_model(const std::string& name) const {
    std::string known;
    for (size_t i = 0; i < models_.size(); ++i) {
      if (models_[i].name == name) return i;
      known += (i > 0 ? ", " : "") + models_[i].name;
    }
    throw ApiError(404, fmt::format("the model '{}' does not exist; this server has {}", name, known),
                   "model", "model_not_found");
  }

  std::shared_ptr<GenerationJob> make_job(const CompletionRequest& request) {
    auto job = std::make_shared<GenerationJob>();
    job->model = find_model(request.model);
    eval::GenerateOptions& o = job->options;
    o = defaults_;
    if (request.max_tokens) o.max_new_tokens = *request.max_tokens;
    if (request.temperature) o.sampling.temperature = *request.temperature;
    if (request.top_p) o.sampling.top_p = *request.top_p;
    if (request.top_k) o.sampling.top_k = *request.top_k;
    if (request.repetition_penalty) o.sampling.repetition_penalty = *request.repetition_penalty;
    if (!request.stop.empty()) o.stop = request.stop;
    if (request.seed)
      o.sampling.seed = static_cast<uint64_t>(*request.seed);
    else
      o.first_stream = asked_++;  // the same prompt again gets another answer
    try {
      job->prompt = request.chat ? session_.encode_chat(request.messages)
                                 : session_.tokenizer().encode(request.prompt, {.parse_special = false});
    } catch (const Error& e) {
      throw ApiError(
          400, fmt::format("the {} cannot be encoded: {}", request.chat ? "messages" : "prompt", e.what()),
          request.chat ? "messages" : "prompt");
    }
    const auto tokens = static_cast<int64_t>(job->prompt.size());
    if (tokens == 0) throw ApiError(400, "the prompt is empty", "prompt");
    if (tokens >= o.context)
      throw ApiError(400,
                     fmt::format("this model's maximum context length is {} tokens; the {} have {}",
                                 o.context, request.chat ? "messages" : "prompt's tokens", tokens),
                     request.chat ? "messages" : "prompt", "context_length_exceeded");
    return job;
  }

  void answer(const httplib::Request& req, httplib::Response& res, bool chat) {
    const CompletionRequest request = parse_completion_request(req.body, chat);
    const std::shared_ptr<GenerationJob> job = make_job(request);
    const Reply reply{chat, fmt::format("{}-{:x}-{}", chat ? "chatcmpl" : "cmpl", started_, ++answers_),
                      request.model, std::time(nullptr)};
    if (!queue_.push(job))
      throw ApiError(429, "too many requests wait already; try again later", "", "rate_limit_exceeded");
    // Failures before the first token still get their own status.
    std::string text;
    while (text.empty() && job->take(text)) {
    }
    if (job->done() && !job->error.empty()) throw ApiError(500, job->error);
    if (request.stream)
      stream(res, job, reply, request.include_usage, std::move(text));
    else
      whole(res, job, reply, std::move(text));
  }

  // Both go out in chunks, which is how a client that went away is noticed.
  static void whole(httplib::Response& res, const std::shared_ptr<GenerationJob>& job, const Reply& reply,
                    std::string text) {
    auto all = std::make_shared<std::string>(std::move(text));
    res.set_chunked_content_provider(
        "application/json",
        [job, reply, all](size_t, httplib::DataSink& sink) {
          std::string more;
          if (job->take(more)) {
            *all += more;
            return sink.is_writable();
          }
          if (!job->error.empty()) return false;
          const std::string body =
              dump_json(reply.whole(*all, eval::finish_name(job->result.finish), job->result.prompt_tokens,
                                    static_cast<int64_t>(job->result.ids.size())));
          sink.write(body.data(), body.size());
          sink.done();
          return true;
        },
        [job](bool) { job->cancelled = true; });
  }

  static void stream(httplib::Response& res, const std::shared_ptr<GenerationJob>& job, const Reply& reply,
                     bool usage, std::string text) {
    struct State {
      std::string text;
      bool first = true;
    };
    auto state = std::make_shared<State>(State{std::move(text), true});
    const auto send = [](httplib::DataSink& sink, const std::string& event) {
      return sink.write(event.data(), event.size());
    };
    res.set_header("Cache-Control", "no-cache");
    res.set_chunked_content_provider(
        "text/event-stream",
        [=](size_t, httplib::DataSink& sink) {
          std::string more = std::move(state->text);
          state->text.clear();
          const bool going = !more.empty() || job->take(more);
          if (going && more.empty()) return sink.is_writable();
          if (state->first || !more.empty()) {
            if (!send(sink, server_event(reply.chunk(more, state->first, nullptr)))) return false;
            state->first = false;
          }
          if (going) return true;
          std::string end;
          if (!job->error.empty()) {
            end = server_event(ApiError(500, job->error).to_json());
          } else {
            end = server_event(reply.chunk("", false, eval::finish_name(job->result.finish)));
            if (usage)
              end += server_event(
                  reply.usage_chunk(job->result.prompt_tokens, static_cast<int64_t>(job->result.ids.size())));
          }
          if (!send(sink, end + "data: [DONE]\n\n")) return false;
          sink.done();
          return true;
        },
        [job](bool) { job->cancelled = true; });
  }

  void run(GenerationJob& job) {
    if (job.cancelled) return job.finish({}, "cancelled");
    try {
      // Keys and values of one model are of no use to another.
      if (generator_ == nullptr || generator_model_ != job.model) {
        generator_ = nullptr;
        session_.context().adapters = models_[job.model].adapters;
        generator_ =
            std::make_unique<eval::Generator>(session_.context(), session_.model(), session_.tokenizer());
        generator_model_ = job.model;
      }
      const auto on_text = [&](size_t, std::string_view text) {
        job.put(text);
        return !job.cancelled;
      };
      eval::Generated answer = generator_->run({job.prompt}, job.options, on_text)[0];
      const bool stopped = interrupted();
      log_debug("{} tokens, {}, {:.1f} tokens/s", answer.ids.size(), eval::finish_name(answer.finish),
                generator_->timing().tokens_per_second());
      job.finish(std::move(answer), stopped ? "the server is shutting down" : "");
    } catch (const std::exception& e) {
      generator_ = nullptr;
      log_warning("an answer failed: {}", e.what());
      job.finish({}, e.what());
    }
  }

  Session& session_;
  std::vector<Served> models_;
  eval::GenerateOptions defaults_;
  GenerationQueue queue_;
  httplib::Server http_;
  std::unique_ptr<eval::Generator> generator_;
  size_t generator_model_ = 0;
  std::atomic<uint64_t> asked_ = 0, answers_ = 0;
  int64_t started_ = std::time(nullptr);
};

// "NAME=DIR", or a directory whose last part is the name.
std::pair<std::string, std::string> split_adapter(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals != std::string::npos) return {text.substr(0, equals), text.substr(equals + 1)};
  const std::filesystem::path path = std::filesystem::path(text).lexically_normal();
  return {(path.has_filename() ? path : path.parent_path()).filename().string(), text};
}

// A folder's name, or a file's without its suffix.
std::string base_name(const std::string& path) {
  const std::string name = split_adapter(path).first;
  return std::filesystem::is_directory(path) ? name : std::filesystem::path(name).stem().string();
}

}  // namespace

int run_serve(const Arguments& arguments) {
  ModelOptions model;
  GenerationOptions generation;
  generation.generate.max_new_tokens = 512;
  std::vector<std::string> adapters;
  std::string host = "127.0.0.1", name;
  int64_t port = 8080;
  bool json = false;
  Options cli("serve",
              "An HTTP server with OpenAI's API (/v1/chat/completions, /v1/completions, /v1/models), "
              "streaming included; one "
              "answer is written at a time, others wait.",
              "nibble serve --model model.gguf --adapter shop=runs/shop/adapter --port 8080");
  model.declare(cli, /*with_adapter=*/false);
  cli.add("--adapter NAME=DIR", adapters,
          "an adapter, asked for by its name as \"model\"; may be given several times");
  cli.add("--name NAME", name, "what the base is called as \"model\"; its file's name if not given");
  cli.add("--host ADDRESS", host, "where to listen; 0.0.0.0 is open to the network");
  cli.add("--port N", port, "0 takes a free one");
  generation.declare(cli);
  cli.flag("--json", json, "print one JSON document when ready: {\"url\", \"models\"}");
  cli.footer(
      "Options of generation are what a request gets that does not say otherwise. There is no "
      "authentication: any key is "
      "accepted. Ctrl-C ends the server.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  generation.check();
  if (port < 0 || port > 65535) throw UsageError("--port", fmt::format("expected 0 to 65535, got {}", port));

  Session session(model);
  if (name.empty()) name = base_name(model.model);
  std::vector<Served> models{{name, {}}};
  for (const std::string& text : adapters) {
    const auto [adapter_name, directory] = split_adapter(text);
    for (const Served& other : models)
      if (other.name == adapter_name || adapter_name.empty())
        throw UsageError("--adapter", fmt::format("\"{}\": each needs a name of its own, as NAME=DIR", text));
    models.push_back({adapter_name, session.attach_adapter(directory, static_cast<int>(models.size()) - 1)});
  }
  eval::GenerateOptions defaults = generation.for_session(session, model.seed);
  if (defaults.context == 0) defaults.context = session.model().config().max_positions;

  catch_interrupts();
  Server server(session, models, defaults);
  const int bound = server.bind(host, port);
  const std::string url = fmt::format("http://{}:{}/v1", host, bound);
  if (json) {
    Json names = Json::array();
    for (const Served& served : models) names.push_back(served.name);
    print_json({{"url", url}, {"models", names}});
  }
  std::string names;
  for (const Served& served : models) names += (names.empty() ? "" : ", ") + served.name;
  log_info("listening on {} with {}; Ctrl-C ends it", url, names);
  server.serve();
  log_info("stopped");
  return 0;
}

}  // namespace nibble::cli
