/* Stands in for GnuTLS in the static binary: Debian's libmicrohttpd.a refers to it, but GnuTLS itself can't be linked
 * statically from Debian's packages (p11-kit has no archive). Nothing here is called while TLS is off; a daemon asked
 * for TLS gets an error from the first call, never a plain connection. Not part of the dynamic build. */
#include <stdlib.h>

void *(*gnutls_malloc)(size_t) = malloc; /* a variable of GnuTLS's interface, not a function */

#define ERROR_UNIMPLEMENTED (-1250) /* GNUTLS_E_UNIMPLEMENTED_FEATURE */

int gnutls_global_init(void);
int gnutls_global_init(void) { return 0; } /* libmicrohttpd calls it at start and panics on an error */
void gnutls_global_deinit(void);
void gnutls_global_deinit(void) {}
const char *gnutls_strerror(int error);
const char *gnutls_strerror(int error)
{
    (void)error;
    return "this build has no TLS";
}

#define REFUSE(name)                                                                                                   \
    int name(void);                                                                                                    \
    int name(void) { return ERROR_UNIMPLEMENTED; }
REFUSE(gnutls_alpn_set_protocols)
REFUSE(gnutls_bye)
REFUSE(gnutls_certificate_allocate_credentials)
REFUSE(gnutls_certificate_server_set_request)
REFUSE(gnutls_certificate_set_dh_params)
REFUSE(gnutls_certificate_set_retrieve_function2)
REFUSE(gnutls_certificate_set_retrieve_function3)
REFUSE(gnutls_certificate_set_x509_key_mem)
REFUSE(gnutls_certificate_set_x509_key_mem2)
REFUSE(gnutls_certificate_set_x509_trust_mem)
REFUSE(gnutls_credentials_set)
REFUSE(gnutls_dh_params_import_pkcs3)
REFUSE(gnutls_dh_params_init)
REFUSE(gnutls_handshake)
REFUSE(gnutls_init)
REFUSE(gnutls_priority_init)
REFUSE(gnutls_priority_set)
REFUSE(gnutls_psk_allocate_server_credentials)
REFUSE(gnutls_psk_set_server_credentials_function)

/* Of a session, which can't exist: gnutls_init has refused it. */
#define NEVER(type, name)                                                                                              \
    type name(void);                                                                                                   \
    type name(void) { abort(); }
NEVER(void, gnutls_certificate_free_credentials)
NEVER(int, gnutls_cipher_get)
NEVER(void, gnutls_deinit)
NEVER(void, gnutls_dh_params_deinit)
NEVER(void, gnutls_priority_deinit)
NEVER(int, gnutls_protocol_get_version)
NEVER(void, gnutls_psk_free_server_credentials)
NEVER(size_t, gnutls_record_check_pending)
NEVER(int, gnutls_record_get_direction)
NEVER(long, gnutls_record_recv)
NEVER(long, gnutls_record_send)
NEVER(void *, gnutls_session_get_ptr)
NEVER(void, gnutls_session_set_ptr)
NEVER(void, gnutls_transport_set_int2)
