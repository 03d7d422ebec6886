# nibble_flags: what every target compiles with. nibble_layer(NAME LINK …): the static library of one folder of src/.
add_library(nibble_flags INTERFACE)
# GCC's plain -Wshadow also objects to members of a scoped enum that are named like a global constant.
target_compile_options(nibble_flags INTERFACE $<IF:$<CXX_COMPILER_ID:GNU>,-Wshadow=local,-Wshadow>)
target_compile_options(nibble_flags INTERFACE -Wall -Wextra -Wno-unknown-pragmas -Wno-restrict $<$<NOT:$<CXX_COMPILER_ID:GNU>>:-Wno-unknown-warning-option> -ffp-contract=off)
if(NIBBLE_WERROR)
  target_compile_options(nibble_flags INTERFACE -Werror)
endif()
if(NIBBLE_SANITIZE)
  # -O1 and line tables alone: half the compile time, and reports still name file and line. Checked containers see what
  # a sanitizer cannot: an index past the end, yet within the capacity.
  target_compile_options(nibble_flags INTERFACE -O1 -g1 -fsanitize=${NIBBLE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_compile_definitions(nibble_flags INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(nibble_flags INTERFACE -fsanitize=${NIBBLE_SANITIZE})
endif()
if(NIBBLE_FUZZ)
  # What the address sanitizer sees as well is left to it: half the code to compile.
  target_compile_options(nibble_flags INTERFACE -fsanitize=fuzzer-no-link -fno-sanitize=vptr,null,object-size,return,function)
endif()

# Sources of one target compiled `batch` at a time: they parse the headers once and share what templates make of them.
# Not the kernels, which Highway compiles several times each, nor files of one pattern that use the same names.
function(nibble_unity target batch)
  if(NIBBLE_UNITY AND NOT target MATCHES "_(backend|quant)$|test_data$")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      target_compile_options(${target} PRIVATE -Wno-subobject-linkage)  # it takes a batch for a header
    endif()
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE ${batch})
    get_target_property(sources ${target} SOURCES)
    list(FILTER sources INCLUDE REGEX "/formats/")
    set_source_files_properties(${sources} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endfunction()

function(nibble_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "src/cli/main.cpp$")
  if(sources)
    add_library(nibble_${name} STATIC ${sources})
    target_include_directories(nibble_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nibble_${name} PUBLIC ${ARG_LINK} PRIVATE nibble_flags)
    nibble_unity(nibble_${name} 10)
    if(NIBBLE_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND name MATCHES "^(io|nn)$")
      target_compile_options(nibble_${name} PRIVATE -Wno-maybe-uninitialized)  # GCC 12 on std::regex, instrumented
    endif()
    if(NIBBLE_SANITIZE MATCHES "address" AND name MATCHES "^(backend|quant)$")
      # Else every value that a lambda of a kernel takes by reference is poisoned anew at each step: four times the code.
      target_compile_options(nibble_${name} PRIVATE -fno-sanitize-address-use-after-scope)
    endif()
    if(NIBBLE_SANITIZE)
      target_link_options(nibble_${name} PUBLIC -fsanitize=${NIBBLE_SANITIZE})
    endif()
  else()
    add_library(nibble_${name} INTERFACE)
    target_include_directories(nibble_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(nibble_${name} INTERFACE ${ARG_LINK})
  endif()
endfunction()
