# For fake.sh and real.sh, which source this after common.sh: etcd, API server, controllers and scheduler on loopback.

port=${EXTAUTHZ_CLUSTER_PORT:-16443}  # of the API server; the others have the numbers behind it
etcd_port=$((port + 1))
peer_port=$((port + 2))
controllers_port=$((port + 3))
scheduler_port=$((port + 4))
kwok_port=$((port + 5))

services=10.96.0.0/16
pods=10.244.0.0/16
certificate_days=30
ready_seconds=90
export KUBECONFIG=$directory/kubeconfig

# Writes a certificate of the cluster's own authority for $1, with the subject $2 and the extensions $3.
certify() {
  openssl req -newkey rsa:2048 -nodes -keyout "pki/$1.key" -out "pki/$1.csr" -subj "$2"
  openssl x509 -req -in "pki/$1.csr" -CA pki/ca.crt -CAkey pki/ca.key -CAcreateserial -days "$certificate_days" \
    -out "pki/$1.crt" -extfile <(echo "$3")
}

write_keys() {
  openssl req -x509 -newkey rsa:2048 -nodes -keyout pki/ca.key -out pki/ca.crt -days "$certificate_days" -subj /CN=cluster
  certify server /CN=kube-apiserver subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc
  certify client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
  openssl genrsa -out pki/tokens.key 2048
  openssl rsa -in pki/tokens.key -pubout -out pki/tokens.pub
}

write_kubeconfig() {
  local token
  token=$(openssl rand -hex 16)
  echo "$token,admin,admin,system:masters" >tokens.csv
  cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: tests, cluster: {server: "https://127.0.0.1:$port", certificate-authority: "$directory/pki/ca.crt"}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: tests, context: {cluster: tests, user: admin}}]
current-context: tests
END
}

# Starts a server that is a client of the API server, too.
start_client() {
  local name=$1
  shift
  start "$name" kubernetes "$name" --kubeconfig "$KUBECONFIG" --authentication-kubeconfig "$KUBECONFIG" \
    --authorization-kubeconfig "$KUBECONFIG" --bind-address 127.0.0.1 --leader-elect=false "$@"
}

# Fails where somebody listens already: this API server would speak to the etcd of another cluster.
need_ports() {
  local each
  for each in $(seq "$port" "$kwok_port"); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$each") 2>/dev/null; then
      fail "port $each is taken; EXTAUTHZ_CLUSTER_PORT names the first of six that are free"
    fi
  done
}

start_control_plane() {
  need etcd kubernetes kubectl openssl
  need_ports
  cd "$directory"
  write_keys 2>logs/openssl.log || fail "openssl: $(tail -n 1 logs/openssl.log)"
  write_kubeconfig

  local etcd=http://127.0.0.1:$etcd_port peer=http://127.0.0.1:$peer_port
  # Nothing has to outlive a crash of the machine.
  start etcd etcd --data-dir "$directory/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"

  # The kubelet's address is the node's IP; by its name, logs and exec would fail.
  start kube-apiserver kubernetes kube-apiserver --etcd-servers "$etcd" \
    --bind-address 127.0.0.1 --advertise-address 127.0.0.1 --secure-port "$port" --endpoint-reconciler-type none \
    --service-cluster-ip-range "$services" --authorization-mode Node,RBAC --allow-privileged \
    --token-auth-file "$directory/tokens.csv" \
    --client-ca-file "$directory/pki/ca.crt" --requestheader-client-ca-file "$directory/pki/ca.crt" \
    --tls-cert-file "$directory/pki/server.crt" --tls-private-key-file "$directory/pki/server.key" \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$directory/pki/tokens.pub" \
    --service-account-signing-key-file "$directory/pki/tokens.key" \
    --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$directory/pki/client.crt" --kubelet-client-key "$directory/pki/client.key"
  await "$ready_seconds" kube-apiserver kubectl get --raw /readyz

  # Autoscalers look so often that tests need not wait for the next time.
  start_client kube-controller-manager --secure-port "$controllers_port" --use-service-account-credentials \
    --horizontal-pod-autoscaler-sync-period 2s \
    --service-account-private-key-file "$directory/pki/tokens.key" --root-ca-file "$directory/pki/ca.crt"
  start_client kube-scheduler --secure-port "$scheduler_port"
  # Without it no pod is admitted to the namespace.
  await "$ready_seconds" kube-controller-manager kubectl --namespace default get serviceaccount default
}
