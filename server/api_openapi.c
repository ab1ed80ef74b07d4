/* GET /openapi.yaml: docs/openapi.yaml, as it was when the daemon was built (embedded by make/embed.sh). */
#include "server/routes.h"

extern const unsigned char qd_openapi_yaml[];
extern const size_t qd_openapi_yaml_size;

void qd_handle_openapi(struct qd_http_request *request)
{
    struct qd_http_piece piece = {qd_openapi_yaml, qd_openapi_yaml_size};
    qd_http_respond(request, 200, "application/yaml", &piece, 1, NULL, NULL);
}
