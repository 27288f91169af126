# Main's build signs the images that it has tested and scanned, each index with its provenance and SBOM in it (.ci/images);
# nothing is deployed without (.ci/verify). Whoever may push to the registry cannot sign by that.
resource "google_kms_key_ring" "this" {
  name       = "melodify"
  location   = var.region
  depends_on = [google_project_service.this]
}

resource "google_kms_crypto_key" "images" {
  #checkov:skip=CKV_GCP_43: a key that signs is not rotated by itself: what it has signed would have to be signed again
  name     = "images"
  key_ring = google_kms_key_ring.this.id
  purpose  = "ASYMMETRIC_SIGN"

  version_template {
    algorithm        = "EC_SIGN_P256_SHA256"
    protection_level = "SOFTWARE"
  }

  lifecycle {
    prevent_destroy = true # with it no release could be verified any more
  }
}

resource "google_kms_crypto_key_iam_member" "images" {
  for_each = {
    "build roles/cloudkms.signerVerifier"    = {} # signs, and looks whether that holds
    "build roles/cloudkms.viewer"            = {} # cosign asks which version of the key is the newest
    "release roles/cloudkms.publicKeyViewer" = {} # verifies, and can sign nothing
    "release roles/cloudkms.viewer"          = {} # as above
  }

  crypto_key_id = google_kms_crypto_key.images.id
  role          = split(" ", each.key)[1]
  member        = google_service_account.this[split(" ", each.key)[0]].member
}
