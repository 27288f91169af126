# The web application's rows: the queue, and what became of each track. SQLite would go with its container, and could not
# be shared by two. Songs and pictures are not here but in the bucket.
resource "google_sql_database_instance" "web" {
  #checkov:skip=CKV_GCP_6: TLS is required (ENCRYPTED_ONLY) and the address is private; a client certificate would be one more secret in each container
  #checkov:skip=CKV2_GCP_13: log_duration writes a line for each statement, and pages poll; log_lock_waits finds what is slow here
  name                = "melodify-web"
  region              = var.region
  database_version    = "POSTGRES_18"
  deletion_protection = true

  settings {
    tier                        = var.database_tier
    edition                     = "ENTERPRISE"
    availability_type           = "ZONAL" # pages say 503 while it is away; twice the price would buy a few minutes a year
    disk_size                   = 10
    disk_autoresize             = true
    deletion_protection_enabled = true
    user_labels                 = local.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.this.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
      start_time                     = "03:00"
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 7 # as long as tracks are kept
      }
    }

    maintenance_window {
      day  = 7
      hour = 4
    }

    # What an operator needs to find a slow or a stuck request.
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }

    database_flags {
      name  = "log_disconnections"
      value = "on"
    }

    database_flags {
      name  = "log_hostname"
      value = "on"
    }

    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }

    database_flags {
      name  = "log_min_error_statement"
      value = "error"
    }

    database_flags {
      name  = "log_min_messages"
      value = "error"
    }

    database_flags { # changes of the schema; no statement of a visitor's
      name  = "log_statement"
      value = "ddl"
    }

    database_flags {
      name  = "log_temp_files"
      value = "0"
    }

    database_flags { # never a statement with its values
      name  = "log_min_duration_statement"
      value = "-1"
    }

    database_flags {
      name  = "cloudsql.enable_pgaudit"
      value = "on"
    }

    database_flags { # ms: a worker that hangs lets go
      name  = "idle_in_transaction_session_timeout"
      value = "60000"
    }
  }

  depends_on = [google_service_networking_connection.database]
}

# Its user is made by hand, with a password that only the secret has:
#   gcloud sql users create melodify --instance=melodify-web --prompt-for-password
resource "google_sql_database" "web" {
  name     = "melodify"
  instance = google_sql_database_instance.web.name
}
