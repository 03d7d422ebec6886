// nibble serve over HTTP, and nibble eval judge asking it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <httplib.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "base/json.h"
#include "cli/openai.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;

const std::string kStories = NIBBLE_SOURCE_DIR "/../shared/data/models/stories260K/stories260K.bin";

// The program as a server, from when it is ready until it is stopped.
class Server {
 public:
  explicit Server(const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{NIBBLE_BINARY_DIR "/nibble",
                                       "serve",
                                       "--model",
                                       kStories,
                                       "--dtype",
                                       "f32",
                                       "--threads",
                                       "1",
                                       "--port",
                                       "0",
                                       "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      std::vector<char*> argv;
      for (std::string& a : arguments) argv.push_back(a.data());
      argv.push_back(nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    std::string text;
    char buffer[512];
    for (ssize_t n; url.empty() && (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
      text.append(buffer, static_cast<size_t>(n));
      const Json ready = Json::parse(text, nullptr, false);
      if (!ready.is_discarded()) url = ready["url"].get<std::string>();
    }
    ::close(ends[0]);
  }
  ~Server() {
    if (child_ > 0) stop();
  }
  // Ctrl-C; the exit code, or -1 when it does not end within ten seconds.
  int stop() {
    ::kill(child_, SIGINT);
    int status = 0;
    for (int i = 0; i < 1000; ++i) {
      if (::waitpid(child_, &status, WNOHANG) == child_) {
        child_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::kill(child_, SIGKILL);
    ::waitpid(child_, &status, 0);
    child_ = -1;
    return -1;
  }
  httplib::Client client() const {
    httplib::Client c(url.substr(0, url.size() - 3));  // without /v1
    c.set_read_timeout(60);
    return c;
  }
  std::string url;

 private:
  pid_t child_ = -1;
};

class Serve : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kStories)) GTEST_SKIP() << "needs " << kStories;
  }
};

Json body_of(const httplib::Result& r) { return r ? parse_json(r->body, "answer") : Json(); }

Json completion(const char* prompt, int64_t tokens) {
  return {{"model", "stories260K"}, {"prompt", prompt}, {"max_tokens", tokens}, {"temperature", 0}};
}

httplib::Result post(httplib::Client& c, const char* path, const Json& body) {
  return c.Post(path, body.dump(), "application/json");
}

// Texts of the events of a stream; checks that it ends as it should.
std::string streamed(const std::string& body, Json* usage = nullptr) {
  std::string text, finish;
  size_t at = 0;
  bool done = false;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    if (end == std::string::npos) break;
    const std::string event = body.substr(at, end - at);
    at = end + 2;
    EXPECT_TRUE(event.starts_with("data: ")) << event;
    EXPECT_FALSE(done);
    if (event == "data: [DONE]") {
      done = true;
      continue;
    }
    const Json json = parse_json(event.substr(6), "event");
    if (json["choices"].empty()) {
      if (usage != nullptr) *usage = json["usage"];
      continue;
    }
    const Json& choice = json["choices"][0];
    if (choice.contains("text")) text += choice["text"].get<std::string>();
    if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
  }
  EXPECT_TRUE(done);
  EXPECT_FALSE(finish.empty());
  return text;
}

TEST_F(Serve, AnswersAndStreamsTheSameText) {
  Server server;
  httplib::Client c = server.client();
  EXPECT_EQ(body_of(c.Get("/health"))["status"], "ok");
  EXPECT_EQ(body_of(c.Get("/v1/models"))["data"][0]["id"], "stories260K");
  EXPECT_EQ(body_of(c.Get("/v1/models/stories260K"))["object"], "model");

  const Json whole = body_of(post(c, "/v1/completions", completion("Once upon a time", 20)));
  EXPECT_EQ(whole["object"], "text_completion");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 20);
  const std::string text = whole["choices"][0]["text"];
  EXPECT_TRUE(text.starts_with(", there was a little girl named Lily")) << text;

  Json request = completion("Once upon a time", 20);
  request["stream"] = true;
  request["stream_options"] = {{"include_usage", true}};
  const auto stream = post(c, "/v1/completions", request);
  ASSERT_TRUE(stream);
  EXPECT_THAT(stream->get_header_value("Content-Type"), HasSubstr("text/event-stream"));
  Json usage;
  EXPECT_EQ(streamed(stream->body, &usage), text);
  EXPECT_EQ(usage["total_tokens"].get<int64_t>(), whole["usage"]["total_tokens"].get<int64_t>());

  request = completion("Once upon a time", 200);
  request["stop"] = Json::array({"named"});
  const Json stopped = body_of(post(c, "/v1/completions", request));
  EXPECT_EQ(stopped["choices"][0]["text"], ", there was a little girl ");
  EXPECT_EQ(stopped["choices"][0]["finish_reason"], "stop");

  // Drawn texts: another each time, the same with a seed.
  request = completion("Once upon a time", 30);
  request["temperature"] = 1;
  const auto draw = [&] {
    return body_of(post(c, "/v1/completions", request))["choices"][0]["text"].get<std::string>();
  };
  EXPECT_NE(draw(), draw());
  request["seed"] = 5;
  EXPECT_EQ(draw(), draw());
  EXPECT_EQ(server.stop(), 0);
}

TEST_F(Serve, RefusesAsOpenAiDoes) {
  Server server;
  httplib::Client c = server.client();
  const auto fails = [&](const char* path, const std::string& body, int status, const char* param,
                         const char* message) {
    const auto r = c.Post(path, body, "application/json");
    ASSERT_TRUE(r);
    EXPECT_EQ(r->status, status) << r->body;
    const Json error = body_of(r)["error"];
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(message));
    EXPECT_EQ(error["param"], *param == '\0' ? Json(nullptr) : Json(param));
    EXPECT_TRUE(error["type"].is_string());
  };
  fails("/v1/completions", "{", 400, "", "the body is not JSON");
  fails("/v1/completions", "[]", 400, "", "should be a JSON object");
  fails("/v1/completions", R"({"prompt": "x"})", 400, "model", "you must provide a 'model'");
  fails("/v1/completions", R"({"model": "gpt-4", "prompt": "x"})", 404, "model",
        "the model 'gpt-4' does not exist; this server has stories260K");
  fails("/v1/completions", R"({"model": "stories260K"})", 400, "prompt", "'prompt' is missing");
  fails("/v1/completions", R"({"model": "stories260K", "prompt": "x", "temperature": 3})", 400, "temperature",
        "from 0 to 2, got 3");
  fails("/v1/completions", R"({"model": "stories260K", "prompt": "x", "max_tokens": 0})", 400, "max_tokens",
        "from 1 up, got 0");
  fails("/v1/completions", R"({"model": "stories260K", "prompt": "x", "n": 2})", 400, "n",
        "'n' is not supported");
  fails("/v1/completions", R"({"model": "stories260K", "prompt": "x", "stop": [""]})", 400, "stop",
        "none of them empty");
  fails("/v1/completions", Json{{"model", "stories260K"}, {"prompt", std::string(4000, 'x')}}.dump(), 400,
        "prompt", "maximum context length is 512 tokens");
  fails("/v1/chat/completions", R"({"model": "stories260K", "messages": []})", 400, "messages",
        "at least one message");
  fails("/v1/chat/completions", R"({"model": "stories260K", "messages": [{"role": "user"}]})", 400,
        "messages[0].content", "has no content");
  fails("/v1/chat/completions",
        R"({"model": "stories260K", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]})",
        400, "messages[0].content", "only text is supported");
  fails("/v1/chat/completions", R"({"model": "stories260K", "messages": [{"role": "user", "content": "x"}]})",
        400, "messages", "has no chat template");
  fails("/v1/embeddings", "{}", 404, "", "there is no POST /v1/embeddings");
  fails("/v1/completions", std::string(200, '['), 400, "", "the body is not JSON");
  EXPECT_EQ(body_of(post(c, "/v1/completions", completion("Once", 3)))["usage"]["completion_tokens"], 3);
}

// Were the answers of those who left written to their ends, the next one would wait for twelve of them.
TEST_F(Serve, AClientThatGoesAwayStopsItsAnswer) {
  Server server;
  httplib::Client c = server.client();
  const auto seconds = [&](const Json& request) {
    const auto start = std::chrono::steady_clock::now();
    const auto r = post(c, "/v1/completions", request);
    EXPECT_TRUE(r && r->status == 200);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  Json request = completion("Once upon a time", 490);
  const double whole = seconds(request);
  for (const bool stream : {true, false}) {
    request["stream"] = stream;
    std::vector<std::thread> leaving;
    for (int i = 0; i < 12; ++i)
      leaving.emplace_back([&] {
        httplib::Client one = server.client();
        one.set_read_timeout(0, 20000);
        (void)post(one, "/v1/completions", request);
      });
    for (std::thread& t : leaving) t.join();
    EXPECT_LT(seconds(completion("Once", 3)), 6 * whole) << (stream ? "streamed" : "whole");
  }
  EXPECT_EQ(server.stop(), 0);
}

TEST_F(Serve, CtrlCEndsItInTheMiddleOfAnAnswer) {
  Server server;
  httplib::Client c = server.client();
  Json request = completion("Once upon a time", 490);
  request["stream"] = true;
  std::thread reader([&] { (void)post(c, "/v1/completions", request); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(server.stop(), 0);
  reader.join();
}

TEST_F(Serve, SaysWhatIsWrong) {
  const Ran port = run_program({"serve", "--model", kStories, "--port", "70000"});
  EXPECT_EQ(port.code, 2);
  EXPECT_THAT(port.err, HasSubstr("expected 0 to 65535, got 70000"));
  const Ran adapter = run_program({"serve", "--model", kStories, "--adapter", "x=/nowhere"});
  EXPECT_EQ(adapter.code, 1);
  EXPECT_THAT(adapter.err, HasSubstr("/nowhere"));
  Server server;
  const std::string taken = server.url.substr(server.url.rfind(':') + 1);
  const Ran second = run_program({"serve", "--model", kStories, "--port", taken.substr(0, taken.size() - 3)});
  EXPECT_EQ(second.code, 1);
  EXPECT_THAT(second.err, HasSubstr("is the port taken?"));
}

TEST(OpenAi, FieldsThatDoNotMatterMayComeAlong) {
  const CompletionRequest r = parse_completion_request(
      R"({"model": "m", "messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"},
      {"type": "text", "text": "b"}]}], "max_completion_tokens": 7, "max_tokens": 9, "stop": "x", "user": "me", "n": 1,
      "presence_penalty": 0, "logit_bias": null, "tools": [], "response_format": {"type": "text"}, "top_p": 0.5})",
      true);
  EXPECT_EQ(r.messages[0]["role"], "system");
  EXPECT_EQ(r.messages[1]["content"], "ab");
  EXPECT_EQ(r.max_tokens, 7);
  EXPECT_EQ(r.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(r.top_p, 0.5);
  EXPECT_FALSE(r.temperature.has_value());
  for (
      const char* body :
      {R"({"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{}]})",
       R"({"model": "m", "messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}})",
       R"({"model": "m", "messages": [{"role": "tool", "content": "x"}]})",
       R"({"model": "m", "messages": [{"role": "user", "content": "x"}], "logprobs": true})",
       R"({"model": "m", "messages": [7]})", R"({"model": "m", "messages": {"role": "user"}})",
       R"({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1e30})",
       R"({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": "yes"})"})
    EXPECT_THROW(parse_completion_request(body, true), ApiError) << body;
}

// The client of nibble eval judge: an overloaded judge, a verdict, nonsense, nobody there, the wrong model.
TEST_F(Serve, AJudgeIsAskedAgainAndItsNonsenseCounted) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("nibble-serve-" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, const char* text) {
    std::ofstream(folder / name) << text;
    return (folder / name).string();
  };
  const std::string questions = write("q.jsonl", "{\"question_id\": 1, \"text\": \"Why?\"}\n");
  const std::string a = write("a.jsonl", "{\"question_id\": 1, \"generation\": \"So.\"}\n"),
                    b = write("b.jsonl", "{\"question_id\": 1, \"text\": \"Because.\"}\n");
  const std::string log = (folder / "log.jsonl").string();
  // A server of the test's own stands in for the judge; the first request meets an overloaded one.
  httplib::Server judge;
  int asked = 0;
  Json last;
  judge.Post("/v1/chat/completions", [&](const httplib::Request& req, httplib::Response& res) {
    last = parse_json(req.body, "request");
    if (asked++ == 0) {
      res.status = 503;
      return;
    }
    const char* says = asked == 2 ? "The first.\\n1" : "I do not know";
    res.set_content(std::string("{\"choices\": [{\"message\": {\"content\": \"") + says + "\"}}]}",
                    "application/json");
  });
  const int port = judge.bind_to_any_port("127.0.0.1");
  std::thread listener([&] { judge.listen_after_bind(); });
  const auto run = [&](const std::string& url) {
    return run_program({"eval",      "judge", "--questions", questions, "--answers", "a=" + a, "--answers",
                        "b=" + b,    "--url", url,           "--judge", "j",         "--log",  log,
                        "--retries", "1",     "--wait",      "0",       "--timeout", "5",      "--json"});
  };
  const Ran ran = run("http://127.0.0.1:" + std::to_string(port) + "/v1/");
  judge.stop();
  listener.join();
  EXPECT_EQ(ran.code, 0) << ran.err;
  const Json counts = parse_json(ran.out, "out");
  EXPECT_EQ(counts["first"], 1);
  EXPECT_EQ(counts["nonsense"], 1);
  EXPECT_EQ(counts["unanswered"], 0);
  EXPECT_EQ(asked, 4);
  EXPECT_EQ(last["model"], "j");
  EXPECT_EQ(last["temperature"], 0.2);
  EXPECT_THAT(last["messages"][1]["content"].get<std::string>(), HasSubstr("[Answer 1]\nBecause.\n"));
  const Ran again = run("http://127.0.0.1:1/v1");  // nobody there, and nobody needed
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(parse_json(again.out, "out")["from_log"], 2);
  std::filesystem::remove(log);
  const Ran refused = run("http://127.0.0.1:1/v1");
  EXPECT_EQ(refused.code, 0) << refused.err;
  EXPECT_EQ(parse_json(refused.out, "out")["unanswered"], 2);
  EXPECT_EQ(run("ftp://x").code, 2);

  Server server;  // it has no chat template: no use asking again
  const Ran hopeless = run(server.url);
  EXPECT_EQ(hopeless.code, 1);
  EXPECT_THAT(hopeless.err, HasSubstr("HTTP 404"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace nibble::cli
