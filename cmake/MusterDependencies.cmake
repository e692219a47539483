# Every third-party library, by the target name that its one home links (docs/architecture.md, "Layers").
# script/bootstrap installs them from Debian's packages.
#
# A command that runs for milliseconds spends most of them in the dynamic loader, so what `muster` needs is linked from
# archives and headers where there are any (docs/adr/0013-static-libraries.md). The sanitizers keep the shared
# libraries: what they are told about libzmq goes by the library's name.
option(MUSTER_STATIC_LIBRARIES "Link third-party libraries from their archives where they have one" ON)
if(MUSTER_SANITIZE OR MUSTER_FUZZ)
  set(MUSTER_STATIC_LIBRARIES OFF)
endif()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(ZLIB REQUIRED)
find_package(SQLite3 REQUIRED)
find_package(GTest REQUIRED)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(TOMLPP REQUIRED IMPORTED_TARGET tomlplusplus)
find_package(nlohmann_json REQUIRED)
find_package(benchmark QUIET)
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(MUSTER_PYTHON ${Python3_EXECUTABLE})

if(MUSTER_STATIC_LIBRARIES)
  # The archives in place of a pkg-config target's shared library, when all of them are installed. Targets named after
  # ALSO are linked as they are.
  function(muster_use_archives target)
    cmake_parse_arguments(arg "" "" "ARCHIVES;ALSO" ${ARGN})
    set(paths)
    foreach(archive ${arg_ARCHIVES})
      find_library(MUSTER_ARCHIVE_${archive} lib${archive}.a)
      if(NOT MUSTER_ARCHIVE_${archive})
        return()
      endif()
      list(APPEND paths ${MUSTER_ARCHIVE_${archive}})
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${paths};${arg_ALSO}")
  endfunction()
  find_library(MUSTER_ARCHIVE_protobuf libprotobuf.a)
  if(MUSTER_ARCHIVE_protobuf)
    set_target_properties(protobuf::libprotobuf PROPERTIES IMPORTED_LOCATION ${MUSTER_ARCHIVE_protobuf}
                                                           IMPORTED_LOCATION_RELEASE ${MUSTER_ARCHIVE_protobuf})
  endif()
  muster_use_archives(PkgConfig::SODIUM ARCHIVES sodium)
  muster_use_archives(PkgConfig::UV ARCHIVES uv_a ALSO Threads::Threads ${CMAKE_DL_LIBS})
  muster_use_archives(PkgConfig::ZMQ ARCHIVES zmq bsd md ALSO muster_zmq_unused PkgConfig::SODIUM Threads::Threads)
  # Without these definitions it is a header-only library.
  set_target_properties(PkgConfig::TOMLPP PROPERTIES INTERFACE_COMPILE_OPTIONS "" INTERFACE_LINK_LIBRARIES "")
  set(MUSTER_SPDLOG spdlog::spdlog_header_only fmt::fmt-header-only)
else()
  set(MUSTER_SPDLOG spdlog::spdlog fmt::fmt)
endif()
