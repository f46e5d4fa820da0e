// Meshcheck reads Kubernetes objects from standard input, YAML documents, and decodes those of Istio, Envoy Gateway and
// the Gateway API into the types of their own programs. A field that they do not know is an error, as is an object of a
// kind that is not listed here. It says how many it decoded.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	gateway "github.com/envoyproxy/gateway/api/v1alpha1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	mesh "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1"
	filters "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	routes "sigs.k8s.io/gateway-api/apis/v1"
	grants "sigs.k8s.io/gateway-api/apis/v1beta1"
	strict "sigs.k8s.io/yaml"
)

// Istio's types are protobuf: these are of the spec alone, and of MeshConfig, which is no object.
var istio = map[string]func() proto.Message{
	"security.istio.io/v1 AuthorizationPolicy": func() proto.Message { return &security.AuthorizationPolicy{} },
	"security.istio.io/v1 PeerAuthentication":  func() proto.Message { return &security.PeerAuthentication{} },
	"networking.istio.io/v1 DestinationRule":   func() proto.Message { return &networking.DestinationRule{} },
	"networking.istio.io/v1 VirtualService":    func() proto.Message { return &networking.VirtualService{} },
	"networking.istio.io/v1 Gateway":           func() proto.Message { return &networking.Gateway{} },
	"networking.istio.io/v1alpha3 EnvoyFilter": func() proto.Message { return &filters.EnvoyFilter{} },
	" MeshConfig": func() proto.Message { return &mesh.MeshConfig{} },
}

var others = map[string]func() any{
	"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":       func() any { return &gateway.SecurityPolicy{} },
	"gateway.envoyproxy.io/v1alpha1 EnvoyExtensionPolicy": func() any { return &gateway.EnvoyExtensionPolicy{} },
	"gateway.envoyproxy.io/v1alpha1 EnvoyProxy":           func() any { return &gateway.EnvoyProxy{} },
	"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy":  func() any { return &gateway.ClientTrafficPolicy{} },
	"gateway.envoyproxy.io/v1alpha1 EnvoyPatchPolicy":     func() any { return &gateway.EnvoyPatchPolicy{} },
	"gateway.networking.k8s.io/v1beta1 ReferenceGrant":    func() any { return &grants.ReferenceGrant{} },
	"gateway.networking.k8s.io/v1 Gateway":                func() any { return &routes.Gateway{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":              func() any { return &routes.HTTPRoute{} },
	"gateway.envoyproxy.io/v1alpha1 EnvoyGateway":         func() any { return &gateway.EnvoyGateway{} },
}

type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Spec       json.RawMessage `json:"spec"`
}

func check(document []byte) error {
	var found object
	if err := strict.Unmarshal(document, &found); err != nil {
		return err
	}
	name := found.APIVersion + " " + found.Kind
	if message, known := istio[name]; known {
		if err := protojson.Unmarshal(found.Spec, message()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if value, known := others[name]; known {
		if err := strict.UnmarshalStrict(document, value()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("%s: not a kind that is known here", name)
}

func main() {
	documents := yaml.NewDocumentDecoder(os.Stdin)
	failures, count := []error{}, 0
	for {
		// The largest object has the meter in it.
		buffer := make([]byte, 1<<20)
		size, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			failures = append(failures, err)
			break
		}
		count++
		failures = append(failures, check(buffer[:size]))
	}
	if err := errors.Join(failures...); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(count, "decoded")
}
