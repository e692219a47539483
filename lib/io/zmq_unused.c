/* libzmq's archive brings transports and mechanisms that Muster does not use: NORM and PGM (multicast) and GSSAPI. The
 * shared libraries behind them, ten with what they need themselves, would cost each start of `muster` more than its
 * work. These definitions stand for them, so that the linker is content. None of them can be reached: every address
 * that Muster takes begins with tcp:// or ipc://, and every TCP socket uses CURVE. Whoever changes that gets an abort
 * here instead of a wrong answer. A symbol that another version of libzmq needs as well makes the link fail by name.
 *
 * The libraries' headers are left out on purpose: only the names count. */
#include <stdlib.h>

void* GSS_C_NT_HOSTBASED_SERVICE;
void* GSS_C_NT_USER_NAME;
const void* const NORM_INSTANCE_INVALID = 0;
const void* const NORM_SESSION_INVALID = 0;
const void* const NORM_OBJECT_INVALID = 0;
const unsigned NORM_NODE_ANY = 0xffffffffU;

/* Each context of libzmq begins and ends the use of PGM. The real one reads the table of protocols for that. */
int pgm_init(void) {
  return 1;
}
int pgm_shutdown(void) {
  return 1;
}

#define MUSTER_UNUSED(name) \
  void name(void) {         \
    abort();                \
  }
MUSTER_UNUSED(NormCreateInstance)
MUSTER_UNUSED(NormCreateSession)
MUSTER_UNUSED(NormDestroyInstance)
MUSTER_UNUSED(NormDestroySession)
MUSTER_UNUSED(NormGetDescriptor)
MUSTER_UNUSED(NormGetNextEvent)
MUSTER_UNUSED(NormGetRandomSessionId)
MUSTER_UNUSED(NormIsUnicastAddress)
MUSTER_UNUSED(NormNodeDelete)
MUSTER_UNUSED(NormObjectGetType)
MUSTER_UNUSED(NormObjectGetUserData)
MUSTER_UNUSED(NormObjectSetUserData)
MUSTER_UNUSED(NormSetCongestionControl)
MUSTER_UNUSED(NormSetDefaultSyncPolicy)
MUSTER_UNUSED(NormSetDefaultUnicastNack)
MUSTER_UNUSED(NormSetLoopback)
MUSTER_UNUSED(NormSetMulticastInterface)
MUSTER_UNUSED(NormSetRxPortReuse)
MUSTER_UNUSED(NormSetTTL)
MUSTER_UNUSED(NormStartReceiver)
MUSTER_UNUSED(NormStartSender)
MUSTER_UNUSED(NormStopInstance)
MUSTER_UNUSED(NormStopReceiver)
MUSTER_UNUSED(NormStopSender)
MUSTER_UNUSED(NormStreamFlush)
MUSTER_UNUSED(NormStreamOpen)
MUSTER_UNUSED(NormStreamRead)
MUSTER_UNUSED(NormStreamSeekMsgStart)
MUSTER_UNUSED(NormStreamWrite)
MUSTER_UNUSED(gss_accept_sec_context)
MUSTER_UNUSED(gss_acquire_cred)
MUSTER_UNUSED(gss_delete_sec_context)
MUSTER_UNUSED(gss_display_name)
MUSTER_UNUSED(gss_import_name)
MUSTER_UNUSED(gss_init_sec_context)
MUSTER_UNUSED(gss_release_buffer)
MUSTER_UNUSED(gss_release_cred)
MUSTER_UNUSED(gss_release_name)
MUSTER_UNUSED(gss_unwrap)
MUSTER_UNUSED(gss_wrap)
MUSTER_UNUSED(pgm_bind3)
MUSTER_UNUSED(pgm_close)
MUSTER_UNUSED(pgm_connect)
MUSTER_UNUSED(pgm_error_free)
MUSTER_UNUSED(pgm_free)
MUSTER_UNUSED(pgm_freeaddrinfo)
MUSTER_UNUSED(pgm_getaddrinfo)
MUSTER_UNUSED(pgm_getsockopt)
MUSTER_UNUSED(pgm_gsi_create_from_data)
MUSTER_UNUSED(pgm_recvmsgv)
MUSTER_UNUSED(pgm_send)
MUSTER_UNUSED(pgm_setsockopt)
MUSTER_UNUSED(pgm_socket)
