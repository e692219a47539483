# libexec/muster/slurm/: links to bin/muster under Slurm's names. They stand in a folder of their own because a job
# finds it first in its PATH, while a machine that also has Slurm keeps its own commands elsewhere.
if(NOT MUSTER_FUZZ)
  foreach(name ${MUSTER_SLURM_NAMES})
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/libexec/muster/slurm)
    file(CREATE_LINK ../../../bin/muster ${CMAKE_BINARY_DIR}/libexec/muster/slurm/${name} SYMBOLIC)
    install(FILES ${CMAKE_BINARY_DIR}/libexec/muster/slurm/${name} DESTINATION libexec/muster/slurm)
  endforeach()
endif()
