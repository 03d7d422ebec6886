// Data records: the same bytes as each container, through the layout they look like and through every layout.
#include "data/formats.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(records) {
  for (const char* name : {"data.jsonl", "data.json", "data.csv", "data.tsv", "data.txt"}) {
    const std::string path = nibble::fuzz::scratch(name);
    nibble::fuzz::put(path, bytes);
    nibble::fuzz::attempt([&] {
      const auto records = nibble::data::read_records(path);
      nibble::fuzz::attempt([&] { (void)nibble::data::choose_format(records, "auto", path); });
      for (const auto& format : nibble::data::data_formats())
        for (const bool has_template : {true, false})
          nibble::fuzz::attempt([&] {
            (void)format.read(records.records, records.sources, {has_template, false});
          });
    });
  }
}
