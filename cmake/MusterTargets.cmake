# One target for each folder. The sources of a folder are listed in its CMakeLists.txt.
#
#   muster_library(NAME SOURCES ... [DEPS ...] [THIRD_PARTY ...])
#     DEPS are Muster's own targets and are public; THIRD_PARTY libraries are private to the folder.
#   muster_program(NAME SOURCES ... [DEPS ...] [THIRD_PARTY ...])
#     a program in bin/, installed.
#   muster_test(NAME SOURCES ... [DEPS ...] [THIRD_PARTY ...] [STARTS ...] [LABELS ...] [TIMEOUT s] [SERIAL])
#     a GoogleTest program, registered as one ctest entry. SERIAL: nothing else runs beside it. STARTS: Muster's programs
#     that it runs; what a sanitizer finds in them fails the test too.
#   muster_script_test(NAME COMMAND ... [LABELS ...] [TIMEOUT s] [SERIAL])
#     any other test, for example a Python script: COMMAND ${MUSTER_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/x_test.py.
#     It finds the programs by the environment variables MUSTER_BUILD_DIR and MUSTER_SOURCE_DIR.
#   muster_fuzz(NAME SOURCES ... [DEPS ...] [THIRD_PARTY ...] [CORPUS DIR] [DICT FILE])
#     SOURCES define LLVMFuzzerTestOneInput. With MUSTER_FUZZ a libFuzzer program that the test run gives FUZZ_SECONDS
#     (label fuzz); otherwise the same function over the corpus and some changed copies of it (label corpus).

add_library(muster_flags INTERFACE)
target_include_directories(muster_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(muster_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual
                                              -Wconversion -Wno-sign-conversion -fno-omit-frame-pointer)
# The standard library's own bounds checks stay on in every build, as MUSTER_CHECK does.
target_compile_definitions(muster_flags INTERFACE _GLIBCXX_ASSERTIONS)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 is wrong about std::string and std::variant when it inlines them (GCC bugs 105329, 105593 and their like). What
  # these two look for is found by the sanitizers and by clang-tidy.
  target_compile_options(muster_flags INTERFACE -Wno-restrict -Wno-maybe-uninitialized)
endif()
if(MUSTER_WERROR)
  target_compile_options(muster_flags INTERFACE -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Also wrong there, depending on what was inlined: no errors, or a harmless change elsewhere could stop the build.
    target_compile_options(muster_flags INTERFACE
      -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread -Wno-error=free-nonheap-object
      -Wno-error=dangling-pointer -Wno-error=use-after-free -Wno-error=nonnull -Wno-error=alloc-size-larger-than=)
  endif()
endif()
if(MUSTER_SANITIZE)
  target_compile_options(muster_flags INTERFACE -fsanitize=${MUSTER_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(muster_flags INTERFACE -fsanitize=${MUSTER_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND MUSTER_SANITIZE MATCHES "undefined")
    # As shared libraries the two do not know of each other, and UndefinedBehaviorSanitizer's ignores log_path, by which
    # tools/with_sanitizers hears of what it found in a daemon.
    target_link_options(muster_flags INTERFACE -static-libasan -static-libubsan)
  endif()
endif()
if(MUSTER_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "MUSTER_FUZZ needs clang: use the preset fuzz")
  endif()
  target_compile_options(muster_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Compiler launcher: ccache where it is installed, unless the caller chose one.
find_program(MUSTER_CCACHE ccache)
if(MUSTER_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${MUSTER_CCACHE})
  # ccache must be told that a changed time stamp of a precompiled header's source is no change, and that two build
  # folders of one tree may share objects.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${MUSTER_CCACHE})
endif()

# Precompiled headers: one of the standard library's for everything, one with GoogleTest's on top for the tests. They
# halve the time of a full build; a build without them (the option's default) finds the includes that a file forgot.
if(MUSTER_PCH AND NOT MUSTER_FUZZ)
  set(standard_headers <algorithm> <array> <compare> <cstddef> <cstdint> <deque> <functional> <map> <memory> <optional>
                       <set> <string> <string_view> <tuple> <utility> <variant> <vector>)
  file(WRITE ${CMAKE_BINARY_DIR}/pch.cc "// Carries the precompiled headers.\n")
  add_library(muster_pch OBJECT ${CMAKE_BINARY_DIR}/pch.cc)
  target_link_libraries(muster_pch PRIVATE muster_flags)
  target_precompile_headers(muster_pch PRIVATE ${standard_headers})
  add_library(muster_pch_test OBJECT ${CMAKE_BINARY_DIR}/pch.cc)
  target_link_libraries(muster_pch_test PRIVATE muster_flags GTest::gmock)
  target_precompile_headers(muster_pch_test PRIVATE ${standard_headers} <gmock/gmock.h> <gtest/gtest.h>)
endif()
function(muster_use_pch name pch)
  if(TARGET ${pch})
    target_precompile_headers(${name} REUSE_FROM ${pch})
  endif()
endfunction()

# Outside the presets a source that is listed but not written yet is left out with a warning, so that half a tree builds.
function(muster_existing_sources variable)
  set(found)
  foreach(source ${ARGN})
    get_filename_component(path ${source} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
    get_source_file_property(generated ${path} GENERATED)
    if(MUSTER_WERROR OR generated OR EXISTS ${path})
      list(APPEND found ${source})
    else()
      message(WARNING "${path} does not exist yet: run cmake again when it does")
    endif()
  endforeach()
  set(${variable} ${found} PARENT_SCOPE)
endfunction()

function(muster_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;THIRD_PARTY" ${ARGN})
  muster_existing_sources(sources ${arg_SOURCES})
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE muster_flags ${arg_DEPS})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC muster_flags ${arg_DEPS} PRIVATE ${arg_THIRD_PARTY})
  muster_use_pch(${name} muster_pch)
  if(MUSTER_FUZZ)  # only what a fuzz target links is built
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endfunction()

# NOT_INSTALLED: a tool of the build tree.
function(muster_program name)
  cmake_parse_arguments(arg "NOT_INSTALLED" "" "SOURCES;DEPS;THIRD_PARTY" ${ARGN})
  muster_existing_sources(sources ${arg_SOURCES})
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE muster_flags ${arg_DEPS} ${arg_THIRD_PARTY})
  muster_use_pch(${name} muster_pch)
  if(MUSTER_FUZZ)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  elseif(NOT arg_NOT_INSTALLED)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
endfunction()

# Properties that every test has. One entry of ENVIRONMENT for each sanitizer: the variables of the others are ignored.
function(muster_test_properties name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "LABELS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(MUSTER_SANITIZE)  # as tests/support/slowness.h and cluster.py
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 5")
  endif()
  set(environment
      MUSTER_BUILD_DIR=${CMAKE_BINARY_DIR}
      MUSTER_SOURCE_DIR=${CMAKE_SOURCE_DIR}
      MUSTER_SANITIZE=${MUSTER_SANITIZE}
      PYTHONDONTWRITEBYTECODE=1
      ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:allocator_may_return_null=1
      UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
      LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tools/sanitizers/lsan.supp:print_suppressions=0
      TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tools/sanitizers/tsan.supp:halt_on_error=1:second_deadlock_stack=1)
  set_tests_properties(${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}" ENVIRONMENT "${environment}")
  if(arg_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  endif()
endfunction()

function(muster_test name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "SOURCES;DEPS;LABELS;THIRD_PARTY;STARTS" ${ARGN})
  if(MUSTER_FUZZ)
    return()
  endif()
  muster_existing_sources(sources ${arg_SOURCES})
  if(NOT sources)
    return()
  endif()
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE muster_flags ${arg_DEPS} ${arg_THIRD_PARTY} GTest::gmock GTest::gtest_main)
  muster_use_pch(${name} muster_pch_test)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  if(arg_STARTS)
    add_dependencies(${name} ${arg_STARTS})
    if(MUSTER_SANITIZE)
      set(watched ${CMAKE_SOURCE_DIR}/tools/with_sanitizers --leaks)
    endif()
  endif()
  add_test(NAME ${name} COMMAND ${watched} $<TARGET_FILE:${name}>)
  if(arg_SERIAL)
    set(serial SERIAL)
  endif()
  muster_test_properties(${name} ${serial} TIMEOUT "${arg_TIMEOUT}" LABELS ${arg_LABELS})
endfunction()

function(muster_script_test name)
  cmake_parse_arguments(arg "SERIAL" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(MUSTER_FUZZ)
    return()
  endif()
  if(MUSTER_SANITIZE)
    list(PREPEND arg_COMMAND ${CMAKE_SOURCE_DIR}/tools/with_sanitizers)
  endif()
  add_test(NAME ${name} COMMAND ${arg_COMMAND})
  if(arg_SERIAL)
    set(serial SERIAL)
  endif()
  muster_test_properties(${name} ${serial} TIMEOUT "${arg_TIMEOUT}" LABELS ${arg_LABELS})
  # What a test ends with that says why it cannot run here; ctest lists it as skipped.
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
endfunction()

function(muster_fuzz name)
  cmake_parse_arguments(arg "" "CORPUS;DICT" "SOURCES;DEPS;THIRD_PARTY" ${ARGN})
  foreach(path CORPUS DICT)
    if(arg_${path})
      get_filename_component(arg_${path} ${arg_${path}} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
    endif()
  endforeach()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE muster_flags ${arg_DEPS} ${arg_THIRD_PARTY})
  if(MUSTER_FUZZ)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_test(NAME ${name} COMMAND ${CMAKE_SOURCE_DIR}/tools/run_fuzz $<TARGET_FILE:${name}> "${arg_CORPUS}" "${arg_DICT}")
    muster_test_properties(${name} TIMEOUT 1200 LABELS fuzz)
  else()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tools/fuzz_replay.cc)
    add_test(NAME ${name} COMMAND ${name} ${arg_CORPUS})
    muster_test_properties(${name} TIMEOUT 60 LABELS corpus)
  endif()
endfunction()
